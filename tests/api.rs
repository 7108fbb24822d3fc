//! The gateway, as a client sees it that knows nothing of edri.

mod access;
mod answers;
mod border;
mod bounds;
pub(crate) mod cache;
mod calls;
pub(crate) mod client;
mod documents;
mod door;
mod feeds;
mod forms;
mod log_ins;
mod metrics;
mod pages;
mod streams;
mod tls;
mod uploads;
mod websocket;
mod workers;

use edri::Node;
use edri::prelude::*;

/// What region is asked about, and how.
#[event(request, name = "api.risk", response = Risk, timeout = "5s", http = "GET /risk/{region}", http = "POST /risk")]
pub(crate) struct AssessRisk {
    region: String,
    #[serde(default)]
    depth: u32,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    exact: Option<bool>,
    #[http(header = "x-tenant")]
    tenant: Option<String>,
    #[http(cookie = "session")]
    session: Option<String>,
}

#[data]
pub(crate) struct Risk {
    said: String,
}

/// A quake, from outside.
#[event(notification, name = "api.quake", key = region, expose)]
pub(crate) struct Quake {
    region: String,
    magnitude: f64,
}

/// Nobody may reach it.
#[event(request, name = "api.secret", response = u32)]
pub(crate) struct Secret {}

pub(crate) struct Model;

impl Worker for Model {}

impl Handle<AssessRisk> for Model {
    async fn handle(&mut self, ask: &AssessRisk, cx: &mut Context) -> Result<Risk, Failure> {
        match &*ask.region {
            "atlantis" => return Err(Failure::new("not_found", "there is no Atlantis")),
            "none" => return Err(Failure::message("out of order")),
            "odd" => return Err(Failure::new("too_odd", "an odd region")),
            "panic" => panic!("on purpose"),
            "never" => cx.cancelled().await,
            _ => {}
        }
        let AssessRisk { region, depth, tags, exact, tenant, session } = ask;
        Ok(Risk { said: format!("{region} {depth} {tags:?} {exact:?} {tenant:?} {session:?}") })
    }
}

impl Handle<Secret> for Model {
    async fn handle(&mut self, _: &Secret, _: &mut Context) -> Result<u32, Failure> {
        Ok(42)
    }
}

/// A node with the model and a gateway on a free port.
pub(crate) async fn node(api: Api) -> Node {
    let model = Manager::new("model").worker(|| Model).handles::<AssessRisk>().handles::<Secret>();
    App::new("gate").manager(model).api(api).start().await.expect("starts")
}

/// A gateway on a free port that knows of quakes.
pub(crate) fn gateway() -> Api {
    Api::bind("127.0.0.1:0").event::<Quake>()
}
