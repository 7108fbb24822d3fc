use std::rc::Rc;

use edri::prelude::*;

struct Record {
    strongest: Rc<f64>,
}

impl Worker for Record {} //~ ERROR `Rc<f64>` cannot be sent between threads safely
//~ NOTE required because it appears within the type `Record`

fn main() {}
