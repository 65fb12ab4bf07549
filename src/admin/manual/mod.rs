//! `xlvs man`: manual pages made from the tables that the parsers go by. All words are our own: the pages of the original ipvsadm
//! and of Piranha are under another licence.

mod ipvsadm;
mod lvs_cf;
mod page;
mod xlvs;

/// The pages that there are.
pub const NAMES: [&str; 3] = ["ipvsadm", "xlvs", "lvs.cf"];

/// A page as roff source; `None` if there is none of that name.
pub fn page(name: &str) -> Option<String> {
    Some(match name {
        "ipvsadm" => ipvsadm::page(),
        "xlvs" => xlvs::page(),
        "lvs.cf" => lvs_cf::page(),
        _ => return None,
    })
}
