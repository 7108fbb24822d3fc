//! Tower layers around what the gateway answers.

use axum::Router;

type Around = Box<dyn FnOnce(Router) -> Router + Send + Sync>;

/// The layers, the innermost first.
#[derive(Default)]
pub(crate) struct Layers(Vec<Around>);

impl Layers {
    /// Puts something around what there is so far.
    pub(crate) fn add(&mut self, layer: impl FnOnce(Router) -> Router + Send + Sync + 'static) {
        self.0.push(Box::new(layer));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn around(self, router: Router) -> Router {
        self.0.into_iter().fold(router, |router, layer| layer(router))
    }
}

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Layers").field(&self.0.len()).finish()
    }
}
