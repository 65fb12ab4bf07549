//! Privileged tests: they need root, and do all they do in network namespaces of their own.

mod netns {
    mod attach;
    mod host;
    mod namespace;
    mod rig;
    mod sending;
    mod steering;
    mod traffic;
}
