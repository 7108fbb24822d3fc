use edri::prelude::*;

#[event(
    tunnel,
    name = "catalogue.upload",
    up = Chunk, //~ ERROR `Chunk` cannot be an item of a tunnel
    //~ HELP put `#[edri::data]` on the declaration of `Chunk`
    down = u64,
)]
struct UploadCatalogue {
    name: String,
}

struct Chunk {
    offset: u64,
}

fn main() {}
