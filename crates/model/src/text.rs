//! Text that others wrote, made fit to be shown.

/// The first `most` characters of a text without its control characters and without the space around it.
pub fn plain(text: &str, most: usize) -> String {
    let kept: String = text.trim().chars().filter(|letter| !letter.is_control()).take(most).collect();
    kept.trim_end().to_owned()
}
