//! Privileged tests: they need root, and do all they do in network namespaces of their own.

mod netns {
    mod attach;
    mod rig;
    mod steering;
    mod traffic;
}
