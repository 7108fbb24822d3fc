//! A process that hosts one worker of a node in another process.

use crate::App;

/// To be called first in the `main` of a program with workers in processes ([`Placement::Process`](crate::Placement)) that
/// does other work before it runs its [`App`].
///
/// A node starts its own program again for each such worker. In that process this hosts the worker of the [`App`] that
/// `build` makes, and never returns; in any other it returns at once, without calling `build`. Programs whose `main` does
/// nothing but to build an [`App`] and run it need not call it: [`App::run`] and [`App::start`] do the same.
///
/// ```no_run
/// use edri::prelude::*;
///
/// fn app() -> App {
///     App::new("observatory") // .manager(..)
/// }
///
/// fn main() -> edri::Result<()> {
///     edri::hosted(app);
///     println!("this is said once, however many workers there are");
///     app().run()
/// }
/// ```
pub fn hosted(build: impl FnOnce() -> App) {
    if let Some(manager) = edri_workers::marked_for() {
        build().host(&manager);
    }
}

/// As [`hosted`], with an app that is there already.
pub(crate) fn host_if_marked(app: App) -> App {
    match edri_workers::marked_for() {
        Some(manager) => app.host(&manager),
        None => app,
    }
}
