//! A look at a database on a disk that cannot be written: everything is read from the file, and what the database writes while
//! it is opened (it mends itself after a crash, and marks itself as in use) stays in memory, page by page.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{Builder, Database, DatabaseError, StorageBackend};

use super::file::Opener;

/// Bytes of one page that is kept in memory.
const PAGE: u64 = 4096;
/// Most pages that are kept: 4 MiB. A database that writes more while it is opened is not looked at.
const PAGES_MAX: usize = 1024;

/// Opens a database without writing to its file.
#[derive(Debug)]
pub(crate) struct ReadOnlyFile;

impl Opener for ReadOnlyFile {
    fn open(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
        builder.create_with_backend(Layer::over(File::open(path)?)?)
    }
}

/// A file with a layer of changed pages above it.
struct Layer {
    file: File,
    above: Mutex<Above>,
}

/// What differs from the file.
struct Above {
    /// The length the database takes the file for.
    len: u64,
    /// As much of the file as it has not cut off.
    below: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Layer {
    fn over(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, above: Mutex::new(Above { len, below: len, pages: BTreeMap::new() }) })
    }

    fn above(&self) -> MutexGuard<'_, Above> {
        self.above.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the file has from `offset` on; zeros from where it was cut off or has ended.
    fn read_below(&self, below: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(below.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (from_file, past_it) = out.split_at_mut(there);
        past_it.fill(0);
        self.file.read_exact_at(from_file, offset)
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Layer").field("file", &self.file).finish_non_exhaustive()
    }
}

/// The parts of a range of bytes, page by page: the page's number, where the part begins in it, and where in the range it lies.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        #[allow(clippy::cast_possible_truncation, reason = "less than a page")]
        let inside = (at % PAGE) as usize;
        #[allow(clippy::cast_possible_truncation, reason = "a page fits")]
        let take = (PAGE as usize - inside).min(len - done);
        let part = (at / PAGE, inside, done..done + take);
        done += take;
        (take > 0).then_some(part)
    })
}

impl StorageBackend for Layer {
    fn len(&self) -> io::Result<u64> {
        Ok(self.above().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let above = self.above();
        if offset.saturating_add(out.len() as u64) > above.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_below(above.below, offset, out)?;
        for (page, inside, range) in parts(offset, out.len()) {
            if let Some(changed) = above.pages.get(&page) {
                let part = inside..inside + range.len();
                out[range].copy_from_slice(&changed[part]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut above = self.above();
        if len < above.len {
            above.below = above.below.min(len);
            above.pages.split_off(&len.div_ceil(PAGE));
            let (last, kept) = (len / PAGE, len % PAGE);
            if let Some(page) = above.pages.get_mut(&last) {
                page.iter_mut().skip(usize::try_from(kept).unwrap_or(0)).for_each(|byte| *byte = 0);
            }
        }
        above.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut above = self.above();
        for (page, inside, range) in parts(offset, data.len()) {
            if !above.pages.contains_key(&page) {
                if above.pages.len() >= PAGES_MAX {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let mut fresh = vec![0; usize::try_from(PAGE).unwrap_or(0)].into_boxed_slice();
                self.read_below(above.below, page * PAGE, &mut fresh)?;
                above.pages.insert(page, fresh);
            }
            if let Some(changed) = above.pages.get_mut(&page) {
                changed[inside..inside + range.len()].copy_from_slice(&data[range]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        Length(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..20_000, prop::collection::vec(any::<u8>(), 0..9000)).prop_map(|(at, data)| Step::Write(at, data)),
            (0_u64..24_000).prop_map(Step::Length),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn it_reads_as_the_changed_file_would_and_leaves_the_file_alone(
            content in prop::collection::vec(any::<u8>(), 1..16_000),
            steps in prop::collection::vec(step(), 0..12),
        ) {
            let path = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(path.path(), &content).unwrap();
            let layer = Layer::over(File::open(path.path()).unwrap()).unwrap();
            let mut like = content.clone();
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        // A database makes room before it writes.
                        let end = usize::try_from(at).unwrap() + data.len();
                        if end > like.len() {
                            layer.set_len(end as u64).unwrap();
                            like.resize(end, 0);
                        }
                        layer.write(at, &data).unwrap();
                        like[usize::try_from(at).unwrap()..end].copy_from_slice(&data);
                    }
                    Step::Length(len) => {
                        layer.set_len(len).unwrap();
                        like.resize(usize::try_from(len).unwrap(), 0);
                    }
                }
                let mut seen = vec![7; like.len()];
                layer.read(0, &mut seen).unwrap();
                prop_assert!(seen == like);
                prop_assert!(layer.read(like.len() as u64, &mut [0]).is_err());
            }
            prop_assert!(std::fs::read(path.path()).unwrap() == content);
        }
    }

    #[test]
    fn what_a_database_writes_is_bounded() {
        let layer = Layer::over(tempfile::tempfile().unwrap()).unwrap();
        layer.set_len(1 << 30).unwrap();
        for page in 0..PAGES_MAX as u64 {
            layer.write(page * PAGE, &[1]).unwrap();
        }
        assert_eq!(layer.write(PAGES_MAX as u64 * PAGE, &[1]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        layer.write(0, &[2]).unwrap();
    }
}
