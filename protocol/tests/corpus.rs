//! The corpora of the fuzz targets, run by an ordinary compiler: what fuzzing once found stays found.

use std::path::PathBuf;

use self::fuzz_one::fuzz_one;
use self::fuzz_packet::fuzz_packet;

mod fuzz_one;
mod fuzz_packet;

/// The files of a corpus.
fn files(corpus: &str) -> Vec<PathBuf> {
    let corpus: PathBuf = [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", corpus].iter().collect();
    let files = std::fs::read_dir(corpus).expect("the corpus is there");
    files.map(|file| file.expect("it can be read").path()).collect()
}

#[test]
fn the_corpus_does_no_harm() {
    for (corpus, fuzz) in [("frame", fuzz_one as fn(&[u8])), ("packet", fuzz_packet)] {
        let files = files(corpus);
        assert!(!files.is_empty());
        for path in files {
            println!("{}", path.display());
            fuzz(&std::fs::read(path).expect("it can be read"));
        }
    }
}
