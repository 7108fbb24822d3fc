use edri::prelude::*;

#[event(notification, name = "quake.recorded", key = region)]
struct QuakeRecorded { region: String, magnitude: f64 }

#[event(request, name = "quake.strongest", response = Strongest, timeout = "2s")]
struct FindStrongest {}

#[data]
struct Strongest { region: String, magnitude: f64 }

#[event(tunnel, name = "catalogue.upload", up = Strongest, down = u64)]
struct UploadCatalogue { name: String }

#[derive(Default)]
struct Catalogue { region: String, magnitude: f64 }

impl Worker for Catalogue {}

impl Handle<QuakeRecorded> for Catalogue {
    async fn handle(&mut self, quake: &QuakeRecorded, cx: &mut Context) -> Result<(), Failure> {
        let strongest = cx.request(FindStrongest {}).await?;
        let mut upload = cx.open(UploadCatalogue { name: quake.region.clone() }).await?;
        upload.send(strongest).await?;
        cx.publish(QuakeRecorded { region: "elsewhere".into(), magnitude: quake.magnitude }).await?;
        Ok(upload.result().await?)
    }
}

impl Handle<FindStrongest> for Catalogue {
    async fn handle(&mut self, _: &FindStrongest, _: &mut Context) -> Result<Strongest, Failure> {
        Ok(Strongest { region: self.region.clone(), magnitude: self.magnitude })
    }
}

fn main() -> edri::Result<()> {
    let catalogue = Manager::new("catalogue").worker(Catalogue::default);
    App::new("observatory").manager(catalogue.handles::<QuakeRecorded>().handles::<FindStrongest>()).run()
}
