//! Finds the process list in what the pm2 command prints.
//!
//! The command prints banners, warnings and `[PM2] …` lines around the list; the list itself is one line. This room
//! only finds that line: reading it is `list`'s business.

/// Returns the JSON line of a `jlist` output: the last line that begins with `[{` or is `[]`.
///
/// Lines of `[PM2]` begin with a bracket too and are passed over. None where there is no such line.
pub fn find_list(stdout: &[u8]) -> Option<&[u8]> {
    stdout.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).rfind(|line| line.starts_with(b"[{") || *line == b"[]")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_list_is_found_through_every_banner() {
        let banners = [
            include_str!("../tests/fixtures/jlist-cold-home-pm2-5.stdout"),
            include_str!("../tests/fixtures/jlist-cold-home-pm2-6.stdout"),
            include_str!("../tests/fixtures/jlist-cold-home-pm2-7.stdout"),
            include_str!("../tests/fixtures/jlist-out-of-date-banner.stdout"),
            "[PM2] Applying action\n",
            "[{\"an\": \"earlier list\"}]\n",
            "",
        ];
        for banner in banners {
            assert_eq!(
                find_list(format!("{banner}\n[{{\"pid\":1}}]").as_bytes()),
                Some(b"[{\"pid\":1}]".as_slice()),
                "{banner}"
            );
            assert_eq!(find_list(format!("{banner}\n[]\r\n\n").as_bytes()), Some(b"[]".as_slice()), "{banner}");
        }
    }

    #[test]
    fn output_without_a_list_has_none() {
        for text in ["", "\n", "[PM2] Spawning PM2 daemon", "[", "[PM2][ERROR] {}", "{\"a\":1}", "text [{"] {
            assert_eq!(find_list(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_last_list_is_found_behind_any_noise(noise in "[^\n]{0,40}(\n[^\n]{0,40}){0,4}") {
            let stdout = format!("{noise}\n[{{}}]\n[PM2] bye");
            prop_assert_eq!(find_list(stdout.as_bytes()), Some(b"[{}]".as_slice()));
        }
    }
}
