//! What a ciphertext belongs to, as associated data: fields that cannot run into each other.

/// Associated data: each field as its length (4 bytes, big-endian) and its bytes.
#[derive(Debug, Default)]
pub(super) struct Context(Vec<u8>);

impl Context {
    /// Begins with what the ciphertext is for, so that no two uses of a key share their contexts.
    pub(super) fn of(purpose: &str) -> Self {
        Self::default().field(purpose.as_bytes())
    }

    /// With one more field.
    pub(super) fn field(mut self, bytes: &[u8]) -> Self {
        // A field of 4 GiB cannot come here: names and owners are at most 257 bytes long.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// The bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let encode = |a: &str, b: &str| {
            let context = Context::of("p").field(a.as_bytes()).field(b.as_bytes());
            context.as_bytes().to_vec()
        };
        assert_ne!(encode("ab", "c"), encode("a", "bc"));
        assert_ne!(encode("", "abc"), encode("abc", ""));
        assert_eq!(
            encode("ab", ""),
            b"\0\0\0\x01p\0\0\0\x02ab\0\0\0\0",
            "the encoding is a stored format"
        );
    }
}
