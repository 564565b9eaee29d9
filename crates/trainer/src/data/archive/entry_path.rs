//! Rules for the names of an archive's entries.

use super::error::{ArchiveError, refused};
use crate::data::codes;

/// Bytes of a path, as Linux's.
const PATH_BYTES: usize = 4_096;
/// Characters of a bad path that a message repeats.
const SHOWN_CHARACTERS: usize = 200;

/// The path of an entry, normalized. One unsafe path refuses the archive.
pub(super) fn check(name: &[u8]) -> Result<Option<String>, ArchiveError> {
    normal(name).map_err(|why| {
        let message = format!(
            "{why}, so nothing of this archive is used; pack the class folders from inside the folder that holds them"
        );
        refused(shown(name), codes::UNSAFE_PATH, message)
    })
}

/// Names that file managers, Windows and storage servers create beside a user's files.
const LEFTOVERS: [&str; 8] = [
    "__MACOSX",
    "Thumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN",
    "System Volume Information",
    "@eaDir",
    "#recycle",
    "@Recycle",
];

/// A normalized path: relative, with `/`, without `.`; empty for the archive's root. `None` for
/// leftovers, and all names that start with a dot. A backslash separates, as Windows' older
/// programs write it.
///
/// # Errors
/// A path that could lead out of its folder, or is not valid on every system.
pub(in crate::data) fn normal(name: &[u8]) -> Result<Option<String>, String> {
    if name.len() > PATH_BYTES {
        return Err(format!("this path has more than {PATH_BYTES} bytes"));
    }
    let Ok(path) = std::str::from_utf8(name) else {
        return Err("this path is not UTF-8".to_owned());
    };
    let path = &path.replace('\\', "/");
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let has_drive = matches!(path.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    let climbs = parts
        .iter()
        .any(|part| part.bytes().all(|byte| byte == b'.'));
    // Some programs list the root itself.
    let is_absolute = path.starts_with('/') && !parts.is_empty();
    let rules = [
        (path.contains('\0'), "this path holds a NUL character"),
        (is_absolute, "this path is absolute"),
        (has_drive, "this path starts with a drive letter"),
        (climbs, "this path climbs out of its folder"),
    ];
    if let Some((_, why)) = rules.iter().find(|(is_broken, _)| *is_broken) {
        return Err((*why).to_owned());
    }
    let is_leftover = |part: &&str| {
        let mut leftovers = LEFTOVERS.iter();
        part.starts_with('.') || leftovers.any(|leftover| leftover.eq_ignore_ascii_case(part))
    };
    if parts.iter().any(is_leftover) {
        return Ok(None);
    }
    Ok(Some(parts.join("/")))
}

/// A name for a message: control characters escaped, long names shortened.
pub(in crate::data) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(4 * SHOWN_CHARACTERS)]);
    let mut shown = String::new();
    for character in text.chars().take(SHOWN_CHARACTERS) {
        if character.is_control() {
            shown.extend(character.escape_default())
        } else {
            shown.push(character)
        }
    }
    if text.chars().nth(SHOWN_CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(name: &[u8]) -> Option<String> {
        match check(name) {
            Err(ArchiveError::Refused(problem)) => Some(problem.code),
            _ => None,
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let long = [b'a'; 70_000];
        let hostile: [&[u8]; 16] = [
            b"../../etc/x",
            b"cats/../../x",
            b"cats/..",
            b"..",
            b"/abs",
            b"//abs",
            b"C:\\x",
            b"c:x",
            b"cats\\..\\x",
            b"\\cats\\x",
            b"\\\\server\\cats\\x",
            b"..././x",
            b"cats/\0.jpg",
            b"cats/\xff.jpg",
            b"cats/.../x",
            &long,
        ];
        for name in hostile {
            assert_eq!(
                code(name).as_deref(),
                Some("unsafe_path"),
                "{}",
                shown(name)
            );
        }
        assert_eq!(code(&[b'a'; PATH_BYTES]), None);
        assert_eq!(
            code(&[b'a'; PATH_BYTES + 1]).as_deref(),
            Some("unsafe_path")
        );
    }

    #[test]
    fn ordinary_paths_are_kept_and_leftovers_ignored() {
        let path = |name: &[u8]| check(name).unwrap();
        assert_eq!(path(b"./cats//1.jpg").as_deref(), Some("cats/1.jpg"));
        assert_eq!(path(b"cats/").as_deref(), Some("cats"));
        for root in [&b"./"[..], b"/", b"\\", b""] {
            assert_eq!(path(root).as_deref(), Some(""));
        }
        assert_eq!(path(b"red\\sub\\0.png").as_deref(), Some("red/sub/0.png"));
        assert_eq!(
            path("кошки/1 ..jpg".as_bytes()).as_deref(),
            Some("кошки/1 ..jpg")
        );
        for ignored in [
            "__MACOSX/cats/._1.jpg",
            "cats/.DS_Store",
            "cats/Thumbs.db",
            "cats/Desktop.ini",
            ".git/config",
            "photos/@eaDir/0.png/SYNOFILE_THUMB_M.png",
            "$RECYCLE.BIN/S-1-5-21/1.jpg",
            "System Volume Information/x",
        ] {
            assert_eq!(path(ignored.as_bytes()), None, "{ignored}");
        }
    }

    #[test]
    fn a_shown_name_is_one_short_line() {
        assert_eq!(shown(b"a\nb\x1b[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(shown(&[b'a'; 70_000]).chars().count(), SHOWN_CHARACTERS + 1);
    }
}
