//! A profile as other tools read it.

use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use v8_heap::profile::{Profile, export, folded};

/// A form that other tools read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// pprof's `profile.proto`, packed by gzip: `go tool pprof`, Pyroscope, Grafana.
    Pprof,
    /// speedscope's JSON.
    Speedscope,
    /// Folded stacks, one a line with its bytes.
    Folded,
}

impl Export {
    /// Reads the name of a form.
    pub fn named(name: &str) -> Option<Self> {
        [("pprof", Self::Pprof), ("speedscope", Self::Speedscope), ("folded", Self::Folded)]
            .into_iter()
            .find_map(|(known, form)| (known == name).then_some(form))
    }

    /// The ending of a file of this form.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Pprof => "pb.gz",
            Self::Speedscope => "speedscope.json",
            Self::Folded => "folded",
        }
    }

    /// Writes a profile in this form.
    ///
    /// # Errors
    /// What the packing says, which never happens in memory.
    pub fn write(self, profile: &Profile, name: &str) -> io::Result<Vec<u8>> {
        match self {
            Self::Pprof => {
                let mut packed = GzEncoder::new(Vec::new(), Compression::default());
                packed.write_all(&export::pprof(profile))?;
                packed.finish()
            }
            Self::Speedscope => Ok(serde_json::to_vec(&export::speedscope(profile, name))?),
            Self::Folded => {
                let lines = folded(profile).into_iter().map(|(stack, bytes)| format!("{stack} {bytes}\n"));
                Ok(lines.collect::<String>().into_bytes())
            }
        }
    }
}
