#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xlvs_fuzz::replica::run(data));
