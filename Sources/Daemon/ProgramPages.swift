// SPDX-License-Identifier: Apache-2.0
internal import CLinux

/// Pages of the program and its libraries that are mapped into this process.
///
/// A start touches much of a large program once: metadata is searched, libraries are bound, and so does what happens
/// rarely. The kernel takes such pages back only when memory is short, and until then they count as ours.
enum ProgramPages {
    /// Unmaps what nobody can write; the first use of a page maps it again from the page cache.
    ///
    /// - Returns: the bytes of the segments it went over.
    @discardableResult
    static func release() -> Int { hm_release_program_pages() }
}
