//! The corpus of the fuzz target, run by an ordinary compiler: what fuzzing once found stays found.

use self::fuzz_one::fuzz_one;

mod fuzz_one;

#[test]
fn the_corpus_does_no_harm() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/frame");
    let mut files = 0;
    for file in std::fs::read_dir(corpus).expect("the corpus is there") {
        let path = file.expect("it can be read").path();
        println!("{}", path.display());
        fuzz_one(&std::fs::read(path).expect("it can be read"));
        files += 1;
    }
    assert!(files > 0);
}
