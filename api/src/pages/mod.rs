//! What a browser gets: pages made from the answers to events.
//!
//! A template sees what the event was asked with and what was answered. It is escaped as HTML whatever it is called, but for `.txt`. While
//! developing it is read for every page; otherwise all are read when the gateway starts, and one that is wrong keeps it from starting.

mod assets;
mod builder;
mod context;
mod functions;
mod problems;

pub(crate) use assets::answer as asset;
pub use builder::Pages;
pub(crate) use context::Shown;
pub(crate) use problems::{asked, dressed, refusal, vary_by_accept};

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use edri_events::HttpRoute;
use minijinja::{Environment, ErrorKind, Value};

use self::assets::Assets;
use crate::ApiError;
use crate::exposed::Exposed;
use crate::forms;
use crate::gateway::Shared;
use crate::problem::Problem;

/// How much may be done for one page: about so many instructions, and 64 bytes for each. A page is made while others wait.
const PAGE_WORK_MAX: u64 = 2_000_000;
/// How deep templates may call and include each other.
const PAGE_DEPTH_MAX: usize = 64;

/// The templates of a running gateway.
pub(crate) struct Templates {
    folder: PathBuf,
    /// With all templates of the folder in it, or with none when they are read for every page.
    templates: Environment<'static>,
    develop: bool,
    policy: HeaderValue,
    assets: Option<Arc<Assets>>,
    /// The templates that are shown at a path, and not for an event.
    plain: HashMap<String, String>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// The folder has no such template.
    #[error("there is no template `{template}` in `{}`", folder.display())]
    Missing { template: String, folder: PathBuf },
    /// The template is wrong, or does not fit what it is given.
    #[error("{}", told(.0))]
    Wrong(minijinja::Error),
}

impl Templates {
    /// Makes a page.
    ///
    /// # Errors
    ///
    /// [`PageError`] when there is no such template, or making the page fails.
    pub(crate) fn render(&self, template: &str, context: Value) -> Result<String, PageError> {
        if !self.develop {
            return self.render_in(&self.templates, template, context);
        }
        // It holds none, so all that the page needs are read again.
        let mut fresh = self.templates.clone();
        fresh.set_loader(minijinja::path_loader(&self.folder));
        self.render_in(&fresh, template, context)
    }

    fn render_in(&self, templates: &Environment<'_>, name: &str, context: Value) -> Result<String, PageError> {
        let template = templates.get_template(name).map_err(|error| self.error(name, error))?;
        template.render(context).map_err(|error| self.error(name, error))
    }

    fn error(&self, template: &str, error: minijinja::Error) -> PageError {
        // One that is included and missing is an error of the template that wants it.
        if error.kind() == ErrorKind::TemplateNotFound && error.line().is_none() {
            return PageError::Missing { template: template.to_owned(), folder: self.folder.clone() };
        }
        PageError::Wrong(error)
    }

    /// What a client is told when there is no page: all of it while developing.
    pub(crate) fn problem(&self, template: &str, error: &PageError) -> Problem {
        tracing::error!(template, %error, "a page cannot be made");
        let detail = if self.develop {
            error.to_string()
        } else {
            "the page cannot be made: the node's log says why".to_owned()
        };
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, PAGE_FAILED, detail)
    }

    /// Whether the templates are there that the events name which are known when the gateway starts.
    fn check(&self, exposed: &Exposed) -> Result<(), ApiError> {
        let table = exposed.table();
        let named = table.events().flat_map(|event| {
            let named = [&event.page.page, &event.page.form].into_iter().flatten();
            named.map(|template| (event.descriptor.name().as_str(), &**template))
        });
        let plain = self.plain.iter().map(|(path, template)| (path.as_str(), template.as_str()));
        for (whose, template) in named.chain(plain) {
            let is_there = self.templates.get_template(template).is_ok();
            if is_there || self.develop && self.folder.join(template).is_file() {
                continue;
            }
            let told =
                format!("`{whose}` names the template `{template}`, which is not in `{}`", self.folder.display());
            if !self.develop {
                return Err(ApiError::Pages(told));
            }
            tracing::warn!("{told}");
        }
        Ok(())
    }

    /// The page at a path that is no event's, for the gateway's `by_path`.
    pub(crate) fn plain(&self, shared: &Shared, head: &Parts) -> Option<Response<Body>> {
        let template =
            self.plain.get(head.uri.path()).filter(|_| [Method::GET, Method::HEAD].contains(&head.method))?;
        let caller = match shared.access.caller(head) {
            Ok(caller) => caller,
            Err(problem) => return Some(problem.into_response()),
        };
        let page = self.render(template, context::plain(shared, head, caller));
        Some(match page {
            Ok(page) => {
                let mut response = self.respond(StatusCode::OK, page);
                response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
                response
            }
            Err(error) => self.problem(template, &error).into_response(),
        })
    }

    /// Whether there is a page at this path that is no event's.
    pub(crate) fn has_plain(&self, path: &str) -> bool {
        self.plain.contains_key(path)
    }

    /// Whether the gateway has assets.
    pub(crate) fn has_assets(&self) -> bool {
        self.assets.is_some()
    }

    /// A page as an answer.
    pub(crate) fn respond(&self, status: StatusCode, page: String) -> Response<Body> {
        let has_form = forms::is_in(&page);
        let mut response = Response::new(Body::from(page));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin"));
        // A form is taken once, so that one that was kept would not be taken again.
        if has_form {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        }
        response
    }

    /// Opens the templates of a gateway that has these events.
    pub(crate) fn open(pages: Pages, exposed: &Arc<Exposed>) -> Result<Self, ApiError> {
        let Pages { folder, assets, plain, develop, policy } = pages;
        if !folder.is_dir() {
            return Err(ApiError::Pages(format!("there is no folder `{}` with templates", folder.display())));
        }
        let policy = HeaderValue::from_str(&policy)
            .map_err(|_| ApiError::Pages(format!("`{policy}` is no Content-Security-Policy")))?;
        let mut templates = Environment::new();
        templates.set_auto_escape_callback(|name| match name.rsplit_once('.') {
            Some((_, "txt")) => minijinja::AutoEscape::None,
            _ => minijinja::AutoEscape::Html,
        });
        // What is not there is shown as nothing, and not as `None`.
        templates.set_formatter(
            |out, state, value| {
                if value.is_none() { Ok(()) } else { minijinja::escape_formatter(out, state, value) }
            },
        );
        templates.set_fuel(Some(PAGE_WORK_MAX));
        templates.set_recursion_limit(PAGE_DEPTH_MAX);
        // It shows the values of variables, which are nothing for a log.
        templates.set_debug(develop);
        let assets = assets.map(|folder| Assets::open(folder, develop)).transpose();
        let assets = assets.map_err(ApiError::Pages)?.map(Arc::new);
        functions::add(&mut templates, exposed, assets.clone());
        let built_in = templates.add_template(problems::BUILT_IN, problems::BUILT_IN_SOURCE);
        built_in.map_err(|error| ApiError::Pages(told(&error)))?;
        let found = builder::templates(&folder).map_err(ApiError::Pages)?;
        if !develop {
            for name in found {
                let source = std::fs::read_to_string(folder.join(&name))
                    .map_err(|error| ApiError::Pages(format!("the template `{name}` cannot be read: {error}")))?;
                templates.add_template_owned(name, source).map_err(|error| ApiError::Pages(told(&error)))?;
            }
        }
        for (path, _) in &plain {
            HttpRoute::new(&format!("GET {path}"))?;
        }
        let plain = plain.into_iter().collect();
        let templates = Self { folder, templates, develop, policy, assets, plain };
        templates.check(exposed)?;
        Ok(templates)
    }
}

/// The page that shows the answer to an event.
pub(crate) struct Page<'s> {
    shared: &'s Shared,
    templates: &'s Templates,
    template: &'s str,
    shown: Shown<'s>,
}

impl<'s> Page<'s> {
    /// The page of the event's own template.
    ///
    /// # Errors
    ///
    /// 500 when the gateway has no templates.
    pub(crate) fn of(shared: &'s Shared, shown: Shown<'s>) -> Result<Self, Problem> {
        let name = shown.event.descriptor.name();
        let template = shown.event.page.page.as_deref().unwrap_or_default();
        let templates = shared.pages.as_ref().ok_or_else(|| {
            let detail =
                format!("`{name}` names the page `{template}`, and this gateway has no pages: give it `Api::pages`");
            tracing::error!(event = %name, "{detail}");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, PAGE_FAILED, detail)
        })?;
        Ok(Self { shared, templates, template, shown })
    }

    /// The page with this answer in it.
    pub(crate) fn respond(&self, status: StatusCode, answer: Value) -> Result<Response<Body>, Problem> {
        let page = self.templates.render(self.template, self.shown.context(self.shared, answer, []));
        let page = page.map_err(|error| self.templates.problem(self.template, &error))?;
        Ok(self.templates.respond(status, page))
    }
}

/// The code of a page that could not be made.
const PAGE_FAILED: &str = "page_failed";

/// An error of a template, with the lines around it.
fn told(error: &minijinja::Error) -> String {
    let mut told = format!("{error}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        told += &format!(": {error}");
        source = error.source();
    }
    told + &error.display_debug_info().to_string()
}
