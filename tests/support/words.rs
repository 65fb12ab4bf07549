//! Command lines.

use std::mem;

/// The words of a command line; quotes hold one together.
pub fn shell_words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in command.chars().chain([' ']) {
        match quote {
            Some(open) if open == letter => quote = None,
            None if matches!(letter, '\'' | '"') => quote = Some(letter),
            None if letter.is_whitespace() => {
                words.extend(Some(mem::take(&mut word)).filter(|word| !word.is_empty()))
            }
            _ => word.push(letter),
        }
    }
    words
}
