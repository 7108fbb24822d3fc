/// The stable hash of a key or name (XXH3, 64 bits, seed 0), the same on every node and in every version.
///
/// Partitions and owners are chosen by it.
#[must_use]
pub fn key_hash(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_hash_of_a_key_is_what_the_reference_implementation_says() {
        // XXH3_64bits of the empty input, from the test vectors of xxHash.
        assert_eq!(super::key_hash(""), 0x2d06_8005_38d3_94c2);
    }
}
