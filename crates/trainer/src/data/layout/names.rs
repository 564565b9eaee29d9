//! Rules for class names: at most `limits::LABEL_CHARACTERS` characters, at least one visible, no
//! control characters (including those of text direction), and no two names that differ only in
//! case, Unicode form or surrounding spaces. Valid names are stored unchanged.

use std::collections::{BTreeMap, BTreeSet};

use unicode_normalization::UnicodeNormalization as _;

use crate::{
    data::codes,
    domain::{limits, problem::Code},
};

/// A name that breaks the rule.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::data) struct BadName<'a> {
    pub(in crate::data) name: &'a str,
    pub(in crate::data) code: Code,
    /// The rule that it breaks.
    pub(in crate::data) why: String,
}

impl BadName<'_> {
    /// The name, as shown in a problem's path.
    pub(in crate::data) fn shown(&self) -> String {
        if self.code == codes::CLASS_NAME_TWINS {
            return self.name.to_owned();
        }
        let characters = self.name.chars().take(limits::LABEL_CHARACTERS);
        characters.flat_map(char::escape_default).collect()
    }
}

/// The names that break the rule, in order.
pub(in crate::data) fn check<'a>(names: &BTreeSet<&'a str>) -> Vec<BadName<'a>> {
    let mut bad = Vec::new();
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for &name in names {
        if let Some(why) = invalid(name) {
            let code = codes::INVALID_CLASS_NAME;
            bad.push(BadName { name, code, why });
            continue;
        }
        let key: String = name.trim().to_lowercase().nfc().collect();
        if let Some(twin) = seen.insert(key, name) {
            let why = format!(
                "the classes {name:?} and {twin:?} differ only in case, Unicode form or spaces around them; give both one name, or two that differ"
            );
            let code = codes::CLASS_NAME_TWINS;
            bad.push(BadName { name, code, why });
        }
    }
    bad
}

fn invalid(name: &str) -> Option<String> {
    if name.chars().count() > limits::LABEL_CHARACTERS {
        let most = limits::LABEL_CHARACTERS;
        Some(format!("this class name has more than {most} characters"))
    } else if name.chars().any(controls_text) {
        Some("this class name holds a control character".to_owned())
    } else if name.trim().is_empty() {
        Some("this class name holds only spaces".to_owned())
    } else {
        None
    }
}

/// Control characters, including those that change the direction of text.
fn controls_text(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
