//! stub
/// x
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// m
    pub minute: std::time::Duration,
    /// x
    pub x: u8,
}
impl Default for Settings {
    fn default() -> Self {
        Self { minute: std::time::Duration::from_secs(60), x: 1 }
    }
}
