//! `xlvs completion`: what a shell offers while a command line is typed. The scripts beside this file know how a line is read; what
//! can be said in it comes from the tables of the parsers. They need bash alone, with or without the package bash-completion.

mod ipvsadm;
mod xlvs;

/// Programs that have one.
pub const PROGRAMS: [&str; 2] = ["ipvsadm", "xlvs"];

const COMMON: &str = include_str!("common.bash");

/// The completion of a program for bash; `None` if there is none of that name.
pub fn bash(program: &str) -> Option<String> {
    let (tables, script) = match program {
        "ipvsadm" => (ipvsadm::tables(), include_str!("ipvsadm.bash")),
        "xlvs" => (xlvs::tables(), include_str!("xlvs.bash")),
        _ => return None,
    };
    let head = format!(
        "# shellcheck shell=bash disable=SC2034\n\
         # Completion of {program} for bash. Made by: xlvs completion bash {program}\n"
    );
    Some([&head, COMMON, &tables, script].concat())
}

/// A bash function that looks its first word up.
fn case_function(about: &str, name: &str, arms: impl IntoIterator<Item = (String, String)>) -> String {
    let arms = arms.into_iter().map(|(pattern, action)| format!("  {pattern}) {action} ;;\n"));
    format!("\n# {about}\n{name}() {{\n  case $1 in\n{}  esac\n}}\n", arms.collect::<String>())
}

/// An assignment to an array.
fn array<S: AsRef<str>>(name: &str, words: impl IntoIterator<Item = S>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for word in words {
        if !distinct.iter().any(|known| known == word.as_ref()) {
            distinct.push(word.as_ref().to_owned());
        }
    }
    format!("{name}=({})", distinct.join(" "))
}
