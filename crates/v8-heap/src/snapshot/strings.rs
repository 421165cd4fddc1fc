//! The snapshot's strings, end to end in one buffer.
//!
//! Strings that only name string objects are the app's data: they are not kept unless that is asked for.

/// A list of strings in one arena.
#[derive(Debug, Default)]
pub struct Strings {
    text: Vec<u8>,
    /// Where each string ends; it begins where the one before ends.
    ends: Vec<u32>,
}

impl Strings {
    /// Returns how many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Says whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns a string's bytes (UTF-8 unless the file was damaged), empty where there is none.
    pub fn bytes(&self, index: u32) -> &[u8] {
        let index = index as usize;
        let Some(&end) = self.ends.get(index) else { return &[] };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start as usize..end as usize]
    }

    /// Returns a string, damaged letters replaced.
    pub fn get(&self, index: u32) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.bytes(index))
    }

    /// Adds bytes to the string under way.
    pub fn extend(&mut self, piece: &[u8]) {
        self.text.extend_from_slice(piece);
    }

    /// Ends the string under way; says whether the arena still has room for more.
    pub fn finish(&mut self) -> bool {
        match u32::try_from(self.text.len()) {
            Ok(end) => {
                self.ends.push(end);
                true
            }
            Err(_) => false,
        }
    }

    /// Adds a whole string and returns its index.
    pub fn add(&mut self, text: &[u8]) -> Option<u32> {
        let index = u32::try_from(self.ends.len()).ok()?;
        self.text.extend_from_slice(text);
        self.finish().then_some(index)
    }

    /// Finds a string by its text.
    pub fn find(&self, text: &str) -> Option<u32> {
        (0..u32::try_from(self.ends.len()).unwrap_or(u32::MAX)).find(|&index| self.bytes(index) == text.as_bytes())
    }

    /// Gives back the room that was kept for growing.
    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// Returns the bytes of memory held.
    pub fn memory(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * 4
    }
}
