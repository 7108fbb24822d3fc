use edri::prelude::*;

#[event(request, name = "risk.assess", response = Risk)]
struct AssessRisk {
    region: String,
}

#[data]
struct Risk {
    probability: f64,
}

struct Model;

impl Worker for Model {}

impl Handle<AssessRisk> for Model {
    async fn handle(&mut self, _: &AssessRisk, _: &mut Context) -> Result<f64, Failure> { //~ ERROR Result<Risk
        Ok(0.1)
    }
}

fn main() {}
