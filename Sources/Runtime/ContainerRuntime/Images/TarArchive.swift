// SPDX-License-Identifier: Apache-2.0
internal import CoreFoundation  // Either this or Glibc owns C structs, by the order files are compiled in.
internal import Glibc
internal import Model
internal import Synchronization

/// The table of contents of a tar file on disk, with random access to its files. Blocking.
///
/// Understands ustar, pax (`path`, `linkpath`, `size`) and GNU long names. Nothing is ever unpacked to disk, so a
/// hostile name cannot reach outside; names with `..` are refused all the same, and links are followed only inside.
final class TarArchive: Sendable {
    enum Kind: Hashable, Sendable {
        case file
        case directory
        /// Symbolic or hard; the target as written.
        case link(target: String, isHard: Bool)
    }

    struct Entry: Hashable, Sendable {
        var kind: Kind
        /// Of the content in the archive.
        var offset: Int64
        var size: Int64
    }

    static let entriesMax = 100_000
    private static let nameBytesMax = 4096
    private static let extensionBytesMax: Int64 = 1 << 20

    let path: String
    /// By normalised name: no leading `./` or `/`, no trailing `/`.
    let entries: [String: Entry]
    private let descriptor: Int32

    /// Reads all headers; cost goes with the number of files, not their size.
    init(path: String) throws(ImageError) {
        self.path = path
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw Self.invalid(
                path, "cannot be read: \(String(cString: strerror(errno)))", hint: "check path and rights")
        }
        self.descriptor = descriptor
        do throws(ImageError) { entries = try Self.readHeaders(descriptor, path) } catch {
            close(descriptor)
            throw error
        }
    }

    deinit { close(descriptor) }

    /// The file of that name, through links (at most 10).
    func file(_ name: String) throws(ImageError) -> Entry {
        var name = try Self.normalise(name, path)
        for _ in 0..<10 {
            guard let entry = entries[name] else {
                throw Self.invalid(path, "has no file `\(name)`", hint: "the archive is incomplete: save it again")
            }
            switch entry.kind {
            case .file: return entry
            case .directory: throw Self.invalid(path, "has a directory where a file belongs: `\(name)`")
            case .link(let target, let isHard):
                guard !target.hasPrefix("/") else {
                    throw Self.invalid(path, "has a link out of the archive: `\(name)` -> `\(target)`")
                }
                let parent = name.split(separator: "/").dropLast().joined(separator: "/")
                name = try Self.normalise(
                    isHard || parent.isEmpty ? target : "\(parent)/\(target)", path, allowsParent: true)
            }
        }
        throw Self.invalid(path, "has a circle of links at `\(name)`")
    }

    /// Up to `count` bytes of a file; empty at its end.
    func read(_ entry: Entry, at offset: Int64, count: Int) throws(ImageError) -> [UInt8] {
        let wanted = Int(min(Int64(count), entry.size - offset))
        guard wanted > 0 else { return [] }
        return try Self.read(descriptor, at: entry.offset + offset, count: wanted, path)
    }

    func readAll(_ entry: Entry, bytesMax: Int) throws(ImageError) -> [UInt8] {
        guard entry.size <= bytesMax else {
            throw Self.invalid(path, "has a document of \(entry.size) bytes; at most \(bytesMax) are accepted")
        }
        return try read(entry, at: 0, count: bytesMax)
    }

    // MARK: Headers

    private static func readHeaders(_ descriptor: Int32, _ path: String) throws(ImageError) -> [String: Entry] {
        let end = Int64(lseek(descriptor, 0, SEEK_END))
        guard end >= 512 else { throw invalid(path, "is not a tar archive: it has \(max(0, end)) bytes") }
        var entries: [String: Entry] = [:]
        var position: Int64 = 0
        var count = 0
        var longName: String?
        var longLink: String?
        var paxSize: Int64?
        while position + 512 <= end {
            let header = try read(descriptor, at: position, count: 512, path)
            if position == 0 { try refuseCompressed(header, path) }
            if header.allSatisfy({ $0 == 0 }) { break }
            guard isChecksumRight(header) else {
                throw invalid(path, position == 0 ? "is not a tar archive" : "is damaged at byte \(position)")
            }
            count += 1
            guard count <= entriesMax else { throw invalid(path, "has more than \(entriesMax) entries") }
            let type = header[156]
            var size = try number(header[124..<136], path)
            let content = position + 512
            switch type {
            case UInt8(ascii: "L"), UInt8(ascii: "K"), UInt8(ascii: "x"), UInt8(ascii: "g"):
                guard size <= extensionBytesMax, content + size <= end else {
                    throw invalid(path, "has an oversized header at byte \(position)")
                }
                let bytes = size == 0 ? [] : try read(descriptor, at: content, count: Int(size), path)
                switch type {
                case UInt8(ascii: "L"): longName = text(bytes[...])
                case UInt8(ascii: "K"): longLink = text(bytes[...])
                case UInt8(ascii: "x"):
                    let fields = try pax(bytes, path)
                    longName = fields["path"] ?? longName
                    longLink = fields["linkpath"] ?? longLink
                    paxSize = try fields["size"].map { (value) throws(ImageError) in
                        guard let size = Int64(value), size >= 0 else {
                            throw invalid(path, "has a size that is no number: `\(value)`")
                        }
                        return size
                    }
                default: break
                }
            default:
                size = paxSize ?? size
                // Links and directories have no content, whatever their size field says.
                let isPlain = [0, UInt8(ascii: "0"), UInt8(ascii: "7")].contains(type)
                if !isPlain, [UInt8(ascii: "1"), UInt8(ascii: "2"), UInt8(ascii: "5")].contains(type) { size = 0 }
                guard size <= end - content else { throw invalid(path, "is cut off at byte \(end)") }
                let raw = longName ?? ustarName(header)
                guard raw.utf8.count <= nameBytesMax else {
                    throw invalid(path, "has a name of \(raw.utf8.count) bytes")
                }
                let isDirectory = type == UInt8(ascii: "5") || raw.hasSuffix("/")
                let name = try normalise(raw, path)
                let target = longLink ?? text(header[157..<257])
                let kind: Kind? =
                    switch type {
                    case UInt8(ascii: "1"): .link(target: target, isHard: true)
                    case UInt8(ascii: "2"): .link(target: target, isHard: false)
                    default: isDirectory ? .directory : isPlain ? .file : nil
                    }
                if let kind, !name.isEmpty { entries[name] = Entry(kind: kind, offset: content, size: size) }
                (longName, longLink, paxSize) = (nil, nil, nil)
            }
            position = content + (size + 511) / 512 * 512
        }
        return entries
    }

    private static func refuseCompressed(_ header: [UInt8], _ path: String) throws(ImageError) {
        let kinds: [(magic: [UInt8], name: String, tool: String)] = [
            ([0x1f, 0x8b], "gzip", "gunzip"), ([0x28, 0xb5, 0x2f, 0xfd], "zstd", "unzstd"),
            ([0xfd, 0x37, 0x7a, 0x58, 0x5a], "xz", "unxz"), ([0x42, 0x5a, 0x68], "bzip2", "bunzip2"),
        ]
        guard let kind = kinds.first(where: { header.starts(with: $0.magic) }) else { return }
        throw invalid(path, "is compressed with \(kind.name)", hint: "unpack it first with \(kind.tool)")
    }

    private static func isChecksumRight(_ header: [UInt8]) -> Bool {
        var sum = 0
        for (index, byte) in header.enumerated() { sum += (148..<156).contains(index) ? 32 : Int(byte) }
        var stored = 0
        for byte in header[148..<156] where (48...55).contains(byte) { stored = stored * 8 + Int(byte - 48) }
        return stored == sum
    }

    /// Octal text, or binary with the top bit set (GNU, files over 8 GiB).
    private static func number(_ field: ArraySlice<UInt8>, _ path: String) throws(ImageError) -> Int64 {
        var value: Int64 = 0
        if let first = field.first, first & 0x80 != 0 {
            guard first == 0x80, field.dropFirst().dropLast(8).allSatisfy({ $0 == 0 }) else {
                throw invalid(path, "has a file of impossible size")
            }
            for byte in field.suffix(8) { value = value << 8 | Int64(byte) }
        } else {
            for byte in field where byte != 0 && byte != 32 {
                guard (48...55).contains(byte) else { throw invalid(path, "has a number that is not octal") }
                value = value * 8 + Int64(byte - 48)
            }
        }
        guard value >= 0 else { throw invalid(path, "has a file of impossible size") }
        return value
    }

    private static func ustarName(_ header: [UInt8]) -> String {
        let name = text(header[0..<100])
        let isPOSIX = header[257..<263].elementsEqual("ustar\0".utf8)
        let prefix = isPOSIX ? text(header[345..<500]) : ""
        return prefix.isEmpty ? name : "\(prefix)/\(name)"
    }

    /// Records `<length> <key>=<value>\n`, the length counting itself.
    private static func pax(_ bytes: [UInt8], _ path: String) throws(ImageError) -> [String: String] {
        var fields: [String: String] = [:]
        var rest = bytes[...]
        while !rest.isEmpty {
            guard let space = rest.firstIndex(of: 32),
                let length = Int(String(decoding: rest[..<space], as: UTF8.self)),
                length > space - rest.startIndex + 1, length <= rest.count,
                rest[rest.startIndex + length - 1] == UInt8(ascii: "\n")
            else { throw invalid(path, "has a damaged pax header") }
            let record = rest[(space + 1)..<(rest.startIndex + length - 1)]
            guard let equals = record.firstIndex(of: UInt8(ascii: "=")) else {
                throw invalid(path, "has a damaged pax header")
            }
            let key = String(decoding: record[..<equals], as: UTF8.self)
            fields[key] = String(decoding: record[(equals + 1)...], as: UTF8.self)
            rest = rest.dropFirst(length)
        }
        return fields
    }

    /// - Parameter allowsParent: resolves `..` inside the archive (link targets) instead of refusing it.
    private static func normalise(
        _ name: String, _ path: String, allowsParent: Bool = false
    ) throws(ImageError) -> String {
        guard !name.utf8.contains(0) else { throw invalid(path, "has a name with a zero byte") }
        var parts: [Substring] = []
        for part in name.split(separator: "/") where part != "." {
            if part == ".." {
                guard allowsParent, !parts.isEmpty else {
                    throw invalid(path, "has a name that leads out of it: `\(name)`", hint: "do not trust this archive")
                }
                parts.removeLast()
            } else {
                parts.append(part)
            }
        }
        return parts.joined(separator: "/")
    }

    private static func text(_ field: ArraySlice<UInt8>) -> String {
        String(decoding: field.prefix { $0 != 0 }, as: UTF8.self)
    }

    private static func read(
        _ descriptor: Int32, at offset: Int64, count: Int, _ path: String
    ) throws(ImageError) -> [UInt8] {
        var done = 0
        var failure: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            while done < count {
                let got = pread(descriptor, buffer.baseAddress.map { $0 + done }, count - done, off_t(offset) + done)
                if got < 0, errno == EINTR { continue }
                guard got > 0 else {
                    failure = got < 0 ? errno : 0
                    break
                }
                done += got
            }
            initialized = done
        }
        guard done == count else {
            throw invalid(path, failure == 0 ? "is cut off" : "cannot be read: \(String(cString: strerror(failure)))")
        }
        return bytes
    }

    static func invalid(_ path: String, _ what: String, hint: String? = nil) -> ImageError {
        let name = path.split(separator: "/").last.map(String.init) ?? path
        return ImageError(
            .imageInvalid, "archive \(name) \(what)", hint: hint ?? "make it with `docker save` or `skopeo copy`")
    }
}
