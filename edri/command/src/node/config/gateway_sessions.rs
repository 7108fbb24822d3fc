//! People who log in with a browser.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Checking, Span};

/// Sessions of people who log in with a browser.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sessions {
    secret_file: Option<PathBuf>,
    namespace: String,
    idle: Span,
    lifetime: Span,
    secure: bool,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            secret_file: None,
            namespace: "sessions".to_owned(),
            idle: Span::seconds(2 * 3600),
            lifetime: Span::seconds(24 * 3600),
            secure: false,
        }
    }
}

impl Sessions {
    pub(super) fn build(&self, checking: &mut Checking) -> Option<edri::Sessions> {
        let mut sessions = edri::Sessions::new().namespace(&self.namespace).secure(self.secure);
        sessions = sessions.idle(self.idle.into()).lifetime(self.lifetime.into());
        if let Some(path) = &self.secret_file {
            let path = checking.file("secret_file", path);
            if !path.is_file() {
                return None;
            }
            sessions = sessions.secret_file(path);
        }
        checking.accept("", sessions.check())?;
        Some(sessions)
    }
}
