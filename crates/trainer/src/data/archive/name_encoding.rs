//! Names that are not UTF-8: programs of Windows write them in the code page of their country and
//! do not say which. All names of an archive together tell the encoding, where they do.

use std::collections::BTreeSet;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{EUC_JP, EUC_KR, Encoding, GBK};

use super::{
    entry_path::shown,
    error::{ArchiveError, refused},
};
use crate::{data::codes, domain::problem::Problem};

/// A character for each byte of a name that waits for its encoding: in a private use area, so that
/// no real name has one.
const WAITING: u32 = 0x10_f700;
/// Names that a message repeats.
const EXAMPLES: usize = 3;

/// The characters of code page 850, the one of Western Europe's Windows, from 0x80 on.
const CP850: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐└┴┬├─┼ãÃ╚╔╩╦╠═╬¤\
    ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}";

/// A name whose encoding is not known yet, as text without separators other than `/`.
pub(super) fn waiting(name: &[u8]) -> String {
    let character = |&byte: &u8| match byte {
        // Also the second half of a character.
        b'\\' | 0x80.. => char::from_u32(WAITING + u32::from(byte)).unwrap_or('?'),
        _ => char::from(byte),
    };
    name.iter().map(character).collect()
}

/// The bytes of a name that waits; `None` for one that does not.
fn bytes_of(name: &str) -> Option<Vec<u8>> {
    let is_waiting = |c: char| (WAITING..WAITING + 256).contains(&u32::from(c));
    let byte = |c: char| match is_waiting(c) {
        true => u8::try_from(u32::from(c) - WAITING).ok(),
        false => u8::try_from(u32::from(c)).ok(),
    };
    name.contains(is_waiting)
        .then(|| name.chars().map(byte).collect())
        .flatten()
}

/// An encoding of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameEncoding {
    Known(&'static Encoding),
    Cp850,
}

impl NameEncoding {
    fn name(self) -> &'static str {
        match self {
            Self::Known(encoding) => encoding.name(),
            Self::Cp850 => "code page 850",
        }
    }

    /// The text of a name; `None` where it is not in this encoding.
    fn decode(self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Known(encoding) => {
                let decoded = encoding.decode_without_bom_handling_and_without_replacement(bytes);
                decoded.map(std::borrow::Cow::into_owned)
            }
            Self::Cp850 => {
                let upper = |byte: u8| CP850.chars().nth(usize::from(byte) - 128);
                let characters = bytes.iter().map(|&byte| match byte {
                    0x80.. => upper(byte),
                    _ => Some(char::from(byte)),
                });
                characters.collect()
            }
        }
    }
}

/// Names in their encoding, in the same order, with a warning that says which it was; `None` where
/// no name waits.
///
/// # Errors
/// Names of folders whose encoding cannot be told: they may be names of classes.
pub(super) fn decode<'a>(
    names: impl Iterator<Item = &'a mut String>,
) -> Result<Option<Problem>, ArchiveError> {
    let waiting: Vec<(&mut String, Vec<u8>)> = names
        .filter_map(|name| {
            let bytes = bytes_of(name)?;
            Some((name, bytes))
        })
        .collect();
    if waiting.is_empty() {
        return Ok(None);
    }
    let parts: BTreeSet<&[u8]> = waiting
        .iter()
        .flat_map(|(_, bytes)| bytes.split(|&byte| byte == b'/'))
        .filter(|part| !part.is_ascii())
        .collect();
    let encoding = detect(&parts);
    let in_folders = waiting.iter().find(|(_, bytes)| {
        let folder = bytes.iter().rposition(|&byte| byte == b'/');
        folder.is_some_and(|end| !bytes[..end].is_ascii())
    });
    if let (None, Some((_, bytes))) = (encoding, in_folders) {
        let message = format!(
            "the names in this archive are in no encoding that can be told (the first: {}); {REPACK}",
            hexed(bytes)
        );
        return Err(refused(shown(bytes), codes::UNKNOWN_ENCODING, message));
    }
    let first = shown(&waiting[0].1);
    let decode = encoding.unwrap_or(NameEncoding::Cp850);
    let mut examples = BTreeSet::new();
    for (name, bytes) in waiting {
        let lossy = || String::from_utf8_lossy(&bytes).into_owned();
        *name = decode.decode(&bytes).unwrap_or_else(lossy);
        let foreign = name.split('/').filter(|part| !part.is_ascii());
        examples.extend(foreign.map(str::to_owned));
    }
    let message = match encoding {
        Some(encoding) => {
            let examples = examples.into_iter().take(EXAMPLES);
            let examples = examples.map(|name| format!("{:?}", shown(name.as_bytes())));
            format!(
                "the names in this archive are not UTF-8, and were read as {}: {}; if that is wrong, {REPACK}",
                encoding.name(),
                examples.collect::<Vec<_>>().join(", ")
            )
        }
        None => format!(
            "the names of files in this archive are in no encoding that can be told; {REPACK}"
        ),
    };
    Ok(Some(Problem::new(first, codes::NAMES_DECODED, message)))
}

const REPACK: &str = "pack it again with names in UTF-8 (7-Zip: the parameter `cu=on`; `zip` and `tar` on Linux and macOS \
    write UTF-8)";

fn hexed(bytes: &[u8]) -> String {
    let shown = bytes.iter().take(40).map(|&byte| match byte {
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    });
    shown.collect()
}

/// The encoding of all these parts of names, which are not ASCII; `None` where it is not clear.
fn detect(parts: &BTreeSet<&[u8]>) -> Option<NameEncoding> {
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    for part in parts {
        detector.feed(part, false);
        detector.feed(b"\n", false);
    }
    detector.feed(b"", true);
    let mut guess = detector.guess(None, Utf8Detection::Deny);
    // Without kana it is hardly Japanese: the same bytes are Korean or Chinese.
    if guess == EUC_JP && !texts(EUC_JP, parts).any(|text| text.contains(is_kana)) {
        let is_hangul = |c: char| c.is_ascii() || ('\u{ac00}'..='\u{d7a3}').contains(&c);
        let mut korean = texts(EUC_KR, parts);
        guess = if korean.all(|text| !text.is_empty() && text.chars().all(is_hangul)) {
            EUC_KR
        } else {
            GBK
        };
    }
    let guessed = NameEncoding::Known(guess);
    let high = || {
        parts
            .iter()
            .flat_map(|part| part.iter().filter(|byte| !byte.is_ascii()))
    };
    // Western Europe's DOS is not among the encodings of the web. Its letters lie where these have
    // signs.
    let is_dos =
        high().all(|&byte| matches!(byte, 0x80..=0xa7 | 0xe1)) && high().any(|&byte| byte < 0xa8);
    let candidates = if is_latin(guess) && is_dos {
        vec![NameEncoding::Cp850]
    } else if is_dos {
        vec![guessed, NameEncoding::Cp850]
    } else {
        vec![guessed]
    };
    candidates
        .into_iter()
        .find(|encoding| reads_well(*encoding, parts))
}

/// The names in this encoding; empty where they are not in it.
fn texts(encoding: &'static Encoding, parts: &BTreeSet<&[u8]>) -> impl Iterator<Item = String> {
    let text = move |part: &&[u8]| NameEncoding::Known(encoding).decode(part);
    parts.iter().map(move |part| text(part).unwrap_or_default())
}

fn is_kana(c: char) -> bool {
    ('\u{3040}'..='\u{30ff}').contains(&c)
}

/// True for encodings of one byte a character whose letters are Latin.
fn is_latin(encoding: &'static Encoding) -> bool {
    let eastern = [
        "windows-1251",
        "windows-1253",
        "windows-1255",
        "windows-1256",
        "windows-874",
    ];
    encoding.is_single_byte()
        && encoding.name().starts_with("windows-")
        && !eastern.contains(&encoding.name())
}

/// True where all of it decodes to letters as names have them: of one script within a word, without
/// a capital behind a small letter, and in Chinese, Japanese or Korean not only single signs among
/// Latin letters.
fn reads_well(encoding: NameEncoding, parts: &BTreeSet<&[u8]>) -> bool {
    let texts: Option<Vec<Vec<char>>> = parts
        .iter()
        .map(|part| Some(encoding.decode(part)?.chars().collect()))
        .collect();
    let Some(texts) = texts else { return false };
    let is_usual = |c: char| c.is_ascii() || c.is_alphanumeric() || "・（）「」『』·".contains(c);
    let is_wide = |c: char| u32::from(c) >= 0x1100;
    let is_odd_pair = |pair: &[char]| match pair {
        [small, capital] if small.is_lowercase() && capital.is_uppercase() => !capital.is_ascii(),
        [one, other] => {
            let is_other_script = |c: &char| (0x370..0x1100).contains(&u32::from(*c));
            let is_latin = |c: &char| c.is_alphabetic() && u32::from(*c) < 0x250;
            is_latin(one) && is_other_script(other) || is_other_script(one) && is_latin(other)
        }
        _ => false,
    };
    let is_word = |text: &Vec<char>| {
        text.windows(2)
            .any(|pair| is_wide(pair[0]) && is_wide(pair[1]))
            || text.iter().all(|c| is_wide(*c) || !c.is_alphabetic())
    };
    let has_wide = texts.iter().flatten().any(|c| is_wide(*c));
    texts
        .iter()
        .all(|text| text.iter().all(|c| is_usual(*c)) && !text.windows(2).any(is_odd_pair))
        && (!has_wide || texts.iter().any(is_word))
}

#[cfg(test)]
mod tests {
    use encoding_rs::{BIG5, SHIFT_JIS, WINDOWS_1251, WINDOWS_1252};

    use super::*;

    fn read(names: &[Vec<u8>]) -> (Vec<String>, Result<Option<Problem>, ArchiveError>) {
        let mut names: Vec<String> = names.iter().map(|name| waiting(name)).collect();
        let said = decode(names.iter_mut());
        (names, said)
    }

    #[track_caller]
    fn assert_read(encoding: &'static Encoding, names: &[&str]) {
        let bytes = names.iter().map(|name| {
            let (bytes, _, failed) = encoding.encode(name);
            assert!(!failed, "{name}");
            bytes.into_owned()
        });
        let (found, said) = read(&bytes.collect::<Vec<_>>());
        assert_eq!(found, names);
        let warning = said.unwrap().unwrap();
        assert_eq!(warning.code, "names_decoded");
        assert!(warning.message.contains(encoding.name()), "{warning:?}");
        assert!(warning.message.contains("UTF-8"), "{warning:?}");
    }

    #[test]
    fn names_of_many_countries_are_read() {
        assert_read(SHIFT_JIS, &["赤/0.png", "青い鳥/0.png"]);
        // The second byte of the first character is a backslash's.
        assert_read(SHIFT_JIS, &["ソフト/0.png", "ハード/1.png"]);
        assert_read(SHIFT_JIS, &["犬/0.png", "猫/表.png", "写真/能力.png"]);
        assert_read(GBK, &["猫/0.png", "狗/1.png", "小鸟/2.png"]);
        assert_read(GBK, &["垃圾分类/可回收物/0.jpg", "垃圾分类/厨余垃圾/1.jpg"]);
        assert_read(BIG5, &["貓咪/0.png", "小狗/1.png", "蝴蝶/2.png"]);
        assert_read(EUC_KR, &["고양이/0.png", "강아지/1.png"]);
        assert_read(EUC_KR, &["빨간색/0.png", "파란색/1.png"]);
        assert_read(EUC_JP, &["ねこの写真/0.png", "いぬの写真/1.png"]);
        assert_read(
            WINDOWS_1251,
            &["кошки/0.png", "собаки/1.png", "птицы/2.png"],
        );
        assert_read(
            WINDOWS_1252,
            &["Äpfel/0.png", "Bäume/1.png", "Gemüse/2.png"],
        );
    }

    #[test]
    fn western_names_of_dos_are_read() {
        for (bytes, name) in [
            (&b"\x8epfel/0.png"[..], "Äpfel/0.png"),
            (b"b\x84ume/\x81ber.png", "bäume/über.png"),
            (b"caf\x82/0.png", "café/0.png"),
            (b"ni\xa4o/0.png", "niño/0.png"),
        ] {
            let (found, said) = read(&[bytes.to_vec()]);
            assert_eq!(found, [name]);
            let warning = said.unwrap().unwrap();
            assert!(warning.message.contains("850"), "{warning:?}");
        }
    }

    #[test]
    fn names_that_cannot_be_told_refuse_folders_and_not_files() {
        let odd = b"\xb0\xb1\xfe\x81\xff".to_vec();
        let folder = [&odd[..], b"/0.png"].concat();
        let (_, said) = read(&[folder]);
        let Err(ArchiveError::Refused(problem)) = said else {
            panic!("{said:?}");
        };
        assert_eq!(problem.code, "unknown_encoding");
        assert!(problem.message.contains("\\xb0\\xb1"), "{problem:?}");
        let (_, said) = read(&[[b"red/", &odd[..]].concat()]);
        assert_eq!(said.unwrap().unwrap().code, "names_decoded");
        let (found, said) = read(&[b"red/0.png".to_vec()]);
        assert_eq!((found, said.unwrap()), (vec!["red/0.png".to_owned()], None));
    }

    #[test]
    fn the_code_page_has_a_character_for_each_byte() {
        assert_eq!(CP850.chars().count(), 128);
        assert_eq!(CP850.chars().nth(0x82 - 0x80), Some('é'));
        assert_eq!(CP850.chars().nth(0xe1 - 0x80), Some('ß'));
        assert_eq!(CP850.chars().nth(0xff - 0x80), Some('\u{a0}'));
    }
}
