//! What a browser gets when something went wrong.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use axum::response::IntoResponse;
use minijinja::Value;

use super::context::{Asked, request};
use super::{PAGE_FAILED, PageError, Templates};
use crate::Caller;
use crate::gateway::Shared;
use crate::http::{Wanted, wanted};
use crate::problem::Problem;

/// The page of a problem when a folder has none for it. No template of a folder has a name that begins with a dot.
pub(super) const BUILT_IN: &str = ".problem.html";
pub(super) const BUILT_IN_SOURCE: &str = include_str!("problem.html");
/// What that page may do: it has its style within, and nothing else.
const BUILT_IN_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// What a page of a problem has to know of a request of this caller, when it is for a page.
pub(crate) fn asked(shared: &Shared, request: &mut Request, caller: &Caller) -> Option<Asked> {
    shared.pages.as_ref()?;
    let (head, body) = std::mem::take(request).into_parts();
    let asked = Asked::page(shared, &head, || caller.clone());
    *request = Request::from_parts(head, body);
    asked
}

/// A problem that is known before anything else, as whoever sent the request wants it.
pub(crate) fn refusal(shared: &Arc<Shared>, head: &Parts, problem: Problem) -> Response<Body> {
    let response = problem.into_response();
    let caller = || shared.access.caller(head).unwrap_or_else(|_| shared.access.anonymous());
    match Asked::page(shared, head, caller) {
        Some(asked) => dressed(shared, &asked, response),
        None => response,
    }
}

impl Asked {
    /// What a page of a problem has to know of a request; `None` when it is not for a page.
    fn page(shared: &Shared, head: &Parts, caller: impl FnOnce() -> Caller) -> Option<Self> {
        shared.pages.as_ref()?;
        let wants = matches!(wanted(&head.headers, true), Ok(Wanted::Page));
        wants.then(|| Self::of(head, caller()))
    }
}

/// The answer with a page in it, if it is a problem.
pub(crate) fn dressed(shared: &Arc<Shared>, asked: &Asked, response: Response<Body>) -> Response<Body> {
    let (Some(templates), Some(problem)) = (&shared.pages, response.extensions().get::<Problem>()) else {
        return response;
    };
    let (page, policy) = templates.problem_page(shared, asked, problem);
    let (page, body) = templates.respond(problem.status(), page).into_parts();
    let (mut head, _) = response.into_parts();
    // It is that of what the page is in the place of.
    head.headers.remove(header::CONTENT_LENGTH);
    for (name, value) in page.headers {
        // A problem is kept by nobody.
        if let Some(name) = name.filter(|name| *name != header::CACHE_CONTROL) {
            head.headers.insert(name, value);
        }
    }
    if let Some(policy) = policy {
        head.headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    }
    vary_by_accept(&mut head.headers);
    Response::from_parts(head, body)
}

/// Says that the same address has something else for those who accept something else.
pub(crate) fn vary_by_accept(headers: &mut HeaderMap) {
    let names =
        |value: &HeaderValue| value.to_str().is_ok_and(|names| names.split(',').any(|name| name.trim() == "accept"));
    if !headers.get_all(header::VARY).iter().any(names) {
        headers.append(header::VARY, HeaderValue::from_static("accept"));
    }
}

impl Templates {
    /// The page of a problem, with its own policy if it has one: the folder's for its code, for its status, for all; or the one
    /// that is built in.
    fn problem_page(&self, shared: &Shared, asked: &Asked, problem: &Problem) -> (String, Option<&'static str>) {
        let context = || {
            let errors = problem
                .errors()
                .iter()
                .map(|error| Value::from_pairs([("field", error.field.as_str()), ("message", error.message.as_str())]));
            let own = [
                ("status", Value::from(problem.status().as_u16())),
                ("title", Value::from(problem.title())),
                ("code", Value::from(problem.code())),
                ("detail", Value::from(problem.detail())),
                ("errors", errors.collect()),
                // For a form that the page has, as to log in.
                ("form", Value::from_pairs::<_, &str, Value>([])),
            ];
            Value::from_pairs(own.into_iter().chain(request(shared, asked)))
        };
        // A page that could not be made says so itself: the folder's may have the same fault.
        let in_folder = problem.code() != PAGE_FAILED || !self.develop;
        let is_name = |code: &&str| code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let code = Some(problem.code()).filter(is_name).map(|code| format!("errors/{code}.html"));
        let status = format!("errors/{}.html", problem.status().as_u16());
        let named = code.into_iter().chain([status, "errors/default.html".to_owned()]);
        for template in named.filter(|_| in_folder) {
            match self.render(&template, context()) {
                Ok(page) => return (page, None),
                Err(PageError::Missing { .. }) => {}
                Err(error) => {
                    tracing::error!(template, %error, "the page of a problem cannot be made");
                    break;
                }
            }
        }
        let built_in = self.templates.get_template(BUILT_IN).and_then(|template| template.render(context()));
        // It is tested; if it fails, the words alone do.
        (built_in.unwrap_or_else(|_| problem.title().to_owned()), Some(BUILT_IN_POLICY))
    }
}
