use edri::prelude::*;

fn main() -> edri::Result<()> {
    App::new("observatory").manager(Manager::new("record")).run() //~ ERROR Manager` has no workers: add `.worker(..)`
    //~ NOTE a `Manager` with workers, a `Manager::program(..)`, a `Manager::remote(..)`, or a `Definition`
}
