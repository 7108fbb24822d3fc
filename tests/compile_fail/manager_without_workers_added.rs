use edri::prelude::*;

async fn change(node: &Node) -> edri::Result<()> {
    node.add(Manager::new("record")).await?; //~ ERROR Manager` has no workers: add `.worker(..)`
    node.replace(Manager::new("record")).await?; //~ ERROR Manager` has no workers: add `.worker(..)`
    Ok(())
}

fn main() {}
