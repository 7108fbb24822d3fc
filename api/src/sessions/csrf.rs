//! Whether a page of ours sends what changes something: a browser sends its cookie also for what others have it do.

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};

use super::LogIns;
use crate::Caller;
use crate::cors::Cors;
use crate::problem::Problem;

/// The header with the token.
const HEADER: &str = "x-csrf-token";
/// The field of a form with the token.
pub(crate) const FIELD: &str = "_csrf";

impl LogIns {
    /// Refuses what changes something, is sent by a browser in a session, and comes from no page of ours. `field` is the token in a form.
    /// Who says in a header who it is needs none: no page can have a browser add that.
    ///
    /// # Errors
    ///
    /// 403.
    pub(crate) fn check_token(
        &self,
        cors: &Cors,
        caller: &Caller,
        head: &Parts,
        field: Option<&str>,
    ) -> Result<(), Problem> {
        let Some(session) = caller.session() else { return Ok(()) };
        if [Method::GET, Method::HEAD, Method::OPTIONS].contains(&head.method) {
            return Ok(());
        }
        if !is_own_page(&head.headers) && !cors.lists(&head.headers) {
            return Err(refused("the browser says that a page of another site sends this"));
        }
        let given = head.headers.get(HEADER).and_then(|token| token.to_str().ok()).or(field);
        match given {
            None => {
                Err(refused(&format!("a token is needed: in the field `{FIELD}` of a form, or the header `{HEADER}`")))
            }
            Some(token) if !self.key.is_token(&session.id, token) => {
                Err(refused("the token is of another session: load the page again"))
            }
            Some(_) => Ok(()),
        }
    }
}

fn refused(why: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "csrf", why)
}

/// What browsers say of the page that sends a request; those that say nothing say `Origin`, which was looked at.
fn is_own_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    matches!(site, None | Some(b"same-origin" | b"none"))
}
