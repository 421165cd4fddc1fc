//! stub
/// x
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListSource {
    /// a
    Auto,
    /// b
    Socket,
    /// c
    Command,
}
/// y
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSpec {
    /// n
    pub name: crate::model::DaemonName,
    /// h
    pub home: std::path::PathBuf,
    /// s
    pub source: ListSource,
    /// c
    pub pm2_command: String,
}
