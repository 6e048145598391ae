// SPDX-License-Identifier: Apache-2.0
import Foundation
import GRDB
import Model
import Raft
import Store
import TestSupport
import Testing

/// A state taken, carried and put in force is the state it was.
@Suite struct SnapshotTests {
    let directory: TemporaryDirectory
    let now = Timestamp(milliseconds: 1_700_000_000_000)

    init() throws {
        directory = try TemporaryDirectory("snap")
    }

    // MARK: - Fixtures

    /// Entry `index` of a history: configs, some with a request id, a membership now and then.
    static func input(_ index: UInt64, mark: String = "") -> StateMachine.Input {
        if index == 1 {
            let change = InitializeCluster(clusterID: "cluster-1", ranges: .standard)
            return .init(
                index: 1, term: 1,
                command: Command(at: Timestamp(milliseconds: 1), change: .initializeCluster(change)))
        }
        if index % 50 == 0 {
            return .init(index: index, term: 1, content: .configuration(Membership(voters: [1, 2, index])))
        }
        let put = PutConfig(
            config: ObjectKey(name: "c\(index % 23)"), data: "\(mark)\(index)" + String(repeating: "x", count: 300),
            condition: .none)
        return .init(
            index: index, term: 1 + index / 100,
            command: Command(
                request: index % 3 == 0 ? "r\(index)" : nil, at: Timestamp(milliseconds: Int64(index) * 1_000),
                change: .putConfig(put)))
    }

    private func state(_ name: String, through index: UInt64, from first: UInt64 = 1) throws -> StateMachine {
        let state = try StateMachine(path: directory.file(name))
        _ = try state.apply((first...index).map { Self.input($0) })
        return state
    }

    private func code(_ body: () throws -> Void) -> SnapshotError.Code? {
        do {
            try body()
            return nil
        } catch let error as SnapshotError {
            #expect(!error.message.isEmpty)
            return error.code
        } catch {
            Issue.record("\(error)")
            return nil
        }
    }

    private func transfer(
        _ manifest: SnapshotManifest, from source: SnapshotStore, to target: SnapshotStore, chunks: Int = .max
    ) throws -> SnapshotReceiver {
        let reader = try source.reader(of: manifest.name)
        let receiver = try SnapshotReceiver(manifest, into: target, clusterID: "cluster-1")
        var sent = 0
        while sent < chunks, let chunk = try reader.chunk(at: receiver.offset) {
            let arrived = try #require(SnapshotChunk(decoding: chunk.encoded()))
            try receiver.write(arrived)
            sent += 1
        }
        return receiver
    }

    /// Large enough for several chunks.
    private func largeState() throws -> StateMachine {
        let state = try state("large", through: 10)
        _ = try state.apply(
            (UInt64(11)...40).map { index in
                let put = PutConfig(
                    config: ObjectKey(name: "large\(index)"), data: String(repeating: "\(index) ", count: 10_000),
                    condition: .none)
                return .init(
                    index: index, term: 1,
                    command: Command(at: Timestamp(milliseconds: 1), change: .putConfig(put)))
            })
        return state
    }

    // MARK: - Taking

    @Test func `a snapshot says what it is of and the newest two are kept`() throws {
        defer { directory.remove() }
        let state = try state("s", through: 60)
        let store = try SnapshotStore(path: directory.file("snapshots"))
        var taken: [SnapshotManifest] = []
        for index: UInt64 in [61, 62, 63] {
            _ = try state.apply([Self.input(index)])
            let manifest = try store.take(from: state, at: now)
            #expect(manifest.position == LogPosition(index: index, term: 1))
            #expect(
                manifest.configuration == ConfigurationPoint(index: 50, membership: Membership(voters: [1, 2, 50])))
            #expect(manifest.clusterID == "cluster-1")
            #expect(try SnapshotManifest(decoding: manifest.encoded()) == manifest)
            taken.append(manifest)
        }
        #expect(try store.take(from: state, at: now) == taken[2], "nothing was applied since")
        #expect(store.snapshots == Array(taken.suffix(2)))
        for snapshot in store.snapshots { try store.verify(snapshot) }
        let files = try FileManager.default.contentsOfDirectory(atPath: directory.file("snapshots"))
        #expect(files.count == 4)
        #expect(try SnapshotStore(path: directory.file("snapshots")).snapshots == store.snapshots)
    }

    @Test func `what is being read stays until it is let go`() throws {
        defer { directory.remove() }
        let state = try state("s", through: 10)
        let store = try SnapshotStore(path: directory.file("snapshots"))
        let first = try store.take(from: state, at: now)
        var reader: SnapshotReader? = try store.reader(of: first.name)
        for index: UInt64 in 11...14 {
            _ = try state.apply([Self.input(index)])
            _ = try store.take(from: state, at: now)
        }
        #expect(store.snapshots.map(\.position.index) == [10, 13, 14])
        #expect(try reader?.chunk(at: 0)?.isIntact == true)
        #expect(try reader?.chunk(at: first.bytes) == nil)
        reader = nil
        _ = try state.apply([Self.input(15)])
        _ = try store.take(from: state, at: now)
        #expect(store.snapshots.map(\.position.index) == [14, 15])
        #expect(code { _ = try store.reader(of: first.name) } == .notFound)
    }

    @Test func `commands go on while snapshots are taken and each is the state at its index`() throws {
        defer { directory.remove() }
        let state = try state("s", through: 5)
        let store = try SnapshotStore(path: directory.file("snapshots"))
        let done = DispatchSemaphore(value: 0)
        let failure = Locked<(any Error)?>(nil)
        Thread.detachNewThread {
            do {
                for index: UInt64 in 6...400 { _ = try state.apply([Self.input(index)]) }
            } catch {
                failure.set(error)
            }
            done.signal()
        }
        var positions: Set<UInt64> = []
        var isDone = false
        while !isDone {
            isDone = done.wait(timeout: .now()) == .success
            let manifest = try store.take(from: state, at: now)
            guard positions.insert(manifest.position.index).inserted, positions.count % 4 == 1 else { continue }
            let copy = try StateMachine(path: nil)
            try copy.install(manifest, from: store)
            let replayed = try StateMachine(path: nil)
            _ = try replayed.apply((1...manifest.position.index).map { Self.input($0) })
            #expect(try copy.digest() == replayed.digest())
        }
        #expect(failure.value == nil)
        #expect(try state.read { try $0.meta().appliedIndex } == 400)
    }

    // MARK: - Putting in force

    @Test func `a snapshot and the commands after it make the same state as all commands`() throws {
        defer { directory.remove() }
        let whole = try state("whole", through: 250)
        let store = try SnapshotStore(path: directory.file("snapshots"))
        let manifest = try store.take(from: try state("part", through: 180), at: now)
        for isFile in [true, false] {
            // A member that was away, with a state and readers of its own.
            let behind = try StateMachine(path: isFile ? directory.file("behind") : nil)
            _ = try behind.apply((1...30).map { Self.input($0, mark: "other ") })
            #expect(try behind.install(manifest, from: store) == manifest.meta)
            #expect(try behind.read { try $0.meta().configuration.index } == 150)
            _ = try behind.apply((170...250).map { Self.input($0) })
            #expect(try behind.digest() == whole.digest(), "file: \(isFile)")
            // Also the answers to requests and the events.
            let again = Command(request: "r9", at: now, change: .compareState)
            let result = try behind.apply([.init(index: 251, term: 3, command: again)]).results.first
            #expect(result?.version == 9)
            guard case .events(let events, 251) = try behind.events(after: 0, limit: 1_000) else {
                Issue.record("events are part of the snapshot")
                return
            }
            #expect(events.first?.index == 1)
        }
        let opened = try StateMachine(path: directory.file("behind"))
        #expect(try opened.read { try $0.meta().appliedIndex } == 251)
    }

    @Test func `readers see the old state or the new one and never a mixture`() throws {
        defer { directory.remove() }
        let store = try SnapshotStore(path: directory.file("snapshots"))
        let a = try state("a", through: 120)
        let b = try StateMachine(path: directory.file("b"))
        _ = try b.apply((1...300).map { Self.input($0, mark: "new ") })
        let snapshots = [try store.take(from: a, at: now), try store.take(from: b, at: now)]
        let stop = Locked(false)
        let failures = Locked<[String]>([])
        let reads = Locked(0)
        let group = DispatchGroup()
        for _ in 0..<3 {
            Thread.detachNewThread {
                group.enter()
                defer { group.leave() }
                while !stop.value {
                    do {
                        let (index, marks, events) = try a.read { view in
                            let marks = Set(try view.configs().map { $0.data.hasPrefix("new ") })
                            let last: UInt64
                            switch try view.events(after: 0, limit: 1_000) {
                            case .events(let events, _): last = events.last?.index ?? 0
                            case .compacted: last = 0
                            }
                            return (try view.meta().appliedIndex, marks, last)
                        }
                        if (index, marks, events) != (120, [false], 120), (index, marks, events) != (300, [true], 300) {
                            failures.change { $0.append("\(index) \(marks) \(events)") }
                        }
                        reads.change { $0 += 1 }
                    } catch {
                        failures.change { $0.append("\(error)") }
                    }
                }
            }
        }
        for round in 0..<12 { try a.install(snapshots[(round + 1) % 2], from: store) }
        let deadline = Date(timeIntervalSinceNow: 60)
        while reads.value < 50, Date() < deadline { try a.install(snapshots[1], from: store) }
        stop.set(true)
        group.wait()
        #expect(failures.value == [])
        #expect(reads.value >= 50)
    }

    @Test func `a power cut at any byte of the write-ahead log leaves the old state or the new one`() throws {
        defer { directory.remove() }
        let store = try SnapshotStore(path: directory.file("snapshots"))
        let manifest = try store.take(from: try state("new", through: 90), at: now)
        let old = try state("old", through: 40)
        let oldDigest = try old.digest()
        #expect(try old.checkpoint())
        try old.install(manifest, from: store)
        let newDigest = try old.digest()
        #expect(newDigest != oldDigest)
        let base = try Data(contentsOf: URL(fileURLWithPath: directory.file("old")))
        let wal = try Data(contentsOf: URL(fileURLWithPath: directory.file("old-wal")))
        #expect(wal.count > 50_000, "what is cut below is not checkpointed yet")
        var random = SeededRandom(seed: 7)
        var lengths = [0, 1, 31, 32, wal.count - 1, wal.count]
        lengths += (0..<25).map { _ in Int.random(in: 0..<wal.count, using: &random) }
        for length in lengths {
            let path = directory.file("cut")
            for suffix in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: path + suffix) }
            try base.write(to: URL(fileURLWithPath: path))
            try wal.prefix(length).write(to: URL(fileURLWithPath: path + "-wal"))
            let digest = try StateMachine(path: path).digest()
            #expect(digest == (length == wal.count ? newDigest : oldDigest), "cut at \(length) of \(wal.count)")
        }
    }

    @Test func `a crash at any step of putting a snapshot in force is finished by doing it again`() throws {
        defer { directory.remove() }
        let files = FileManager.default
        let root = directory.file("node")
        try files.createDirectory(atPath: root, withIntermediateDirectories: true)
        let store = try SnapshotStore(path: "\(root)/snapshots")
        let other = try state("other", through: 200)
        let manifest = try store.take(from: other, at: now)
        let state = try StateMachine(path: "\(root)/state")
        _ = try state.apply((1...20).map { Self.input($0) })
        #expect(try state.checkpoint())
        var images: [(String, String)] = []
        func image(_ step: String) throws {
            let copy = directory.file("image-\(images.count)")
            try files.copyItem(atPath: root, toPath: copy)
            images.append((step, copy))
        }
        try image("before")
        try store.beginInstall(manifest)
        try image("marked")
        try state.install(manifest, from: store)
        try image("state replaced")
        #expect(try state.checkpoint())
        try image("checkpointed")
        try store.endInstall()
        try image("done")
        for (step, path) in images {
            let store = try SnapshotStore(path: "\(path)/snapshots")
            let state = try StateMachine(path: "\(path)/state")
            let pending = try store.pendingInstall()
            #expect((pending != nil) == ["marked", "state replaced", "checkpointed"].contains(step), "\(step)")
            if let pending {
                #expect(pending == manifest)
                try state.install(pending, from: store)
                try state.install(pending, from: store)
                try store.endInstall()
                #expect(try store.pendingInstall() == nil)
            }
            let index = try state.read { try $0.meta().appliedIndex }
            #expect(index == (step == "before" ? 20 : 200), "\(step)")
        }
    }

    @Test func `a snapshot being put in force is not pruned, and its loss is said`() throws {
        defer { directory.remove() }
        let state = try state("s", through: 10)
        let path = directory.file("snapshots")
        let store = try SnapshotStore(path: path)
        let marked = try store.take(from: state, at: now)
        try store.beginInstall(marked)
        for index: UInt64 in 11...14 {
            _ = try state.apply([Self.input(index)])
            _ = try store.take(from: state, at: now)
        }
        #expect(store.snapshots.map(\.position.index) == [10, 13, 14])
        #expect(try SnapshotStore(path: path).pendingInstall() == marked)
        try FileManager.default.removeItem(atPath: store.file(of: marked))
        #expect(code { _ = try SnapshotStore(path: path).pendingInstall() } == .damaged)
        try store.endInstall()
        #expect(try SnapshotStore(path: path).snapshots.map(\.position.index) == [13, 14])
    }

    // MARK: - In memory

    @Test func `a state in memory becomes the same bytes whatever its history`() throws {
        defer { directory.remove() }
        let straight = try StateMachine(path: nil)
        _ = try straight.apply((1...200).map { Self.input($0) })
        let bytes = try straight.serialized()
        let crooked = try StateMachine(path: nil)
        _ = try crooked.apply((1...90).map { Self.input($0, mark: "other ") })
        let early = try StateMachine(path: nil)
        for index: UInt64 in 1...120 { _ = try early.apply([Self.input(index)]) }
        try crooked.install(serialized: early.serialized())
        _ = try crooked.apply((100...200).map { Self.input($0) })
        #expect(try crooked.digest() == straight.digest())
        #expect(try crooked.serialized() == bytes)
        let file = try state("file", through: 200)
        #expect(try file.serialized() == bytes)
        #expect(throws: (any Error).self) { try crooked.install(serialized: [1, 2, 3]) }
        #expect(try crooked.serialized() == bytes, "what cannot be read changes nothing")
    }

    // MARK: - Transfer

    @Test func `a transfer goes on where it stopped, also after a restart`() throws {
        defer { directory.remove() }
        let state = try largeState()
        let source = try SnapshotStore(path: directory.file("source"))
        let manifest = try source.take(from: state, at: now)
        #expect(manifest.bytes > 3 * UInt64(SnapshotChunk.bytesMax))
        let path = directory.file("target")
        let first = try transfer(manifest, from: source, to: try SnapshotStore(path: path), chunks: 2)
        #expect(first.offset == 2 * UInt64(SnapshotChunk.bytesMax))
        #expect(code { _ = try first.finish() } == .outOfOrder)
        let reader = try source.reader(of: manifest.name)
        let early = try #require(try reader.chunk(at: 0))
        #expect(code { try first.write(early) } == .outOfOrder)
        var flipped = try #require(try reader.chunk(at: first.offset))
        flipped.bytes[77] ^= 1
        #expect(code { try first.write(flipped) } == .damaged)
        #expect(SnapshotChunk(decoding: flipped.encoded()) == nil)

        let target = try SnapshotStore(path: path)
        #expect(target.snapshots.isEmpty, "what is incomplete is no snapshot")
        let second = try transfer(manifest, from: source, to: target, chunks: 0)
        #expect(second.offset == 2 * UInt64(SnapshotChunk.bytesMax))
        let third = try transfer(manifest, from: source, to: target)
        #expect(third.isComplete)
        #expect(try third.finish() == manifest)
        #expect(target.snapshots == [manifest])
        #expect(try SnapshotStore(path: path).snapshots == [manifest])
        let copy = try StateMachine(path: directory.file("copy"))
        try copy.install(manifest, from: target)
        #expect(try copy.digest() == state.digest())
    }

    @Test func `another snapshot begins a transfer anew`() throws {
        defer { directory.remove() }
        let state = try largeState()
        let source = try SnapshotStore(path: directory.file("source"))
        let target = try SnapshotStore(path: directory.file("target"))
        let first = try source.take(from: state, at: now)
        _ = try transfer(first, from: source, to: target, chunks: 2)
        _ = try state.apply([Self.input(41)])
        let second = try source.take(from: state, at: now)
        let late = try SnapshotReceiver(first, into: target, clusterID: nil)
        #expect(try transfer(second, from: source, to: target, chunks: 0).offset == 0)
        // The one before goes on, to no avail.
        let reader = try source.reader(of: first.name)
        while let chunk = try reader.chunk(at: late.offset) { try late.write(chunk) }
        #expect(code { _ = try late.finish() } == .outOfOrder)
        let receiver = try transfer(second, from: source, to: target)
        #expect(try receiver.finish() == second)
        // The answer was lost: it is asked for once more.
        let again = try SnapshotReceiver(second, into: target, clusterID: nil)
        #expect(again.isComplete)
        #expect(try again.finish() == second)
        #expect(target.snapshots == [second])
    }

    @Test func `every kind of damage is refused by name and leaves nothing behind`() throws {
        defer { directory.remove() }
        let state = try largeState()
        let source = try SnapshotStore(path: directory.file("source"))
        let manifest = try source.take(from: state, at: now)
        let part = directory.file("target/incoming.part")
        let target = try SnapshotStore(path: directory.file("target"))
        // One byte in each of many regions: header, schema, inner pages, rows, the end.
        for place in [0, 20, 100, 5_000, Int(manifest.bytes / 2), Int(manifest.bytes) - 1] {
            let receiver = try transfer(manifest, from: source, to: target)
            var bytes = try Data(contentsOf: URL(fileURLWithPath: part))
            bytes[place] ^= 0x10
            try bytes.write(to: URL(fileURLWithPath: part))
            // Opened anew: the first one still has the file that was replaced.
            let again = try SnapshotReceiver(manifest, into: target, clusterID: "cluster-1")
            #expect(again.offset == receiver.offset)
            #expect(code { _ = try again.finish() } == .damaged, "byte \(place)")
            #expect(!FileManager.default.fileExists(atPath: part))
            #expect(target.snapshots.isEmpty)
        }
        // A file that is sound for its sum and is not inside.
        var bytes = try Data(contentsOf: URL(fileURLWithPath: source.file(of: manifest)))
        for page in stride(from: 4_096, to: bytes.count, by: 4_096) { bytes[page] = 0xEE }
        try expectDamage(in: bytes, manifest)
        try expectDamage(in: Data(repeating: 7, count: 5_000), manifest)
        // One of another index than its manifest says.
        var wrong = manifest
        wrong.position.index += 1
        let receiver = try SnapshotReceiver(wrong, into: target, clusterID: nil)
        let reader = try source.reader(of: manifest.name)
        while let chunk = try reader.chunk(at: receiver.offset) { try receiver.write(chunk) }
        #expect(code { _ = try receiver.finish() } == .damaged)
    }

    private func expectDamage(in bytes: Data, _ manifest: SnapshotManifest) throws {
        let target = try SnapshotStore(path: directory.file("target"))
        var claimed = manifest
        claimed.bytes = UInt64(bytes.count)
        claimed.sha256 = try sha256(bytes)
        let receiver = try SnapshotReceiver(claimed, into: target, clusterID: nil)
        while !receiver.isComplete {
            let from = Int(receiver.offset)
            let piece = bytes[from..<min(bytes.count, from + SnapshotChunk.bytesMax)]
            try receiver.write(SnapshotChunk(offset: receiver.offset, bytes: Array(piece)))
        }
        #expect(code { _ = try receiver.finish() } == .damaged)
    }

    private func sha256(_ bytes: Data) throws -> [UInt8] {
        let path = try directory.write("", to: "sum")
        try bytes.write(to: URL(fileURLWithPath: path))
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/sha256sum")
        process.arguments = [path]
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        process.waitUntilExit()
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self).prefix(64)
        return stride(from: 0, to: 64, by: 2).compactMap { offset in
            let start = text.index(text.startIndex, offsetBy: offset)
            return UInt8(text[start..<text.index(start, offsetBy: 2)], radix: 16)
        }
    }

    @Test func `what may not be received is refused before a byte is written`() throws {
        defer { directory.remove() }
        let source = try SnapshotStore(path: directory.file("source"))
        let target = try SnapshotStore(path: directory.file("target"))
        let manifest = try source.take(from: try state("s", through: 30), at: now)
        #expect(code { _ = try SnapshotReceiver(manifest, into: target, clusterID: "cluster-2") } == .foreign)
        var newer = manifest
        newer.schemaVersion += 1
        #expect(code { _ = try SnapshotReceiver(newer, into: target, clusterID: nil) } == .newer)
        #expect(
            code { _ = try SnapshotReceiver(manifest, into: target, clusterID: nil, bytesMax: manifest.bytes - 1) }
                == .tooLarge)
        var huge = manifest
        huge.bytes = .max
        #expect(code { _ = try SnapshotReceiver(huge, into: target, clusterID: nil) } == .tooLarge)
        let free = manifest.bytes * 2
        #expect(
            code { _ = try SnapshotReceiver(manifest, into: target, clusterID: nil, freeBytes: free) } == .noSpace)
        _ = try SnapshotReceiver(manifest, into: target, clusterID: nil, freeBytes: manifest.bytes * 11 / 5)
        #expect(target.snapshots.isEmpty)
    }

    @Test func `a manifest with any byte changed or missing is refused`() throws {
        defer { directory.remove() }
        let store = try SnapshotStore(path: directory.file("snapshots"))
        let bytes = try store.take(from: try state("s", through: 30), at: now).encoded()
        for place in bytes.indices {
            var flipped = bytes
            flipped[place] ^= 0x20
            #expect(code { _ = try SnapshotManifest(decoding: flipped) } == .damaged, "byte \(place)")
            #expect(code { _ = try SnapshotManifest(decoding: Array(bytes[..<place])) } == .damaged, "cut at \(place)")
        }
        #expect(code { _ = try SnapshotManifest(decoding: bytes + [0]) } == .damaged)
        let huge = [UInt8](repeating: 48, count: SnapshotManifest.encodedBytesMax + 1)
        #expect(code { _ = try SnapshotManifest(decoding: huge) } == .damaged)
    }

    @Test func `a file damaged on this disk is found before it is put in force`() throws {
        defer { directory.remove() }
        let store = try SnapshotStore(path: directory.file("snapshots"))
        let manifest = try store.take(from: try state("s", through: 90), at: now)
        var bytes = try Data(contentsOf: URL(fileURLWithPath: store.file(of: manifest)))
        bytes[bytes.count - 100] ^= 1
        try bytes.write(to: URL(fileURLWithPath: store.file(of: manifest)))
        #expect(code { try store.verify(manifest) } == .damaged)
        let state = try state("other", through: 10)
        let before = try state.digest()
        #expect(code { try state.install(manifest, from: store) } == .damaged)
        #expect(try state.digest() == before)
        // Cut short it is no snapshot any more once the store is opened anew.
        try bytes.dropLast().write(to: URL(fileURLWithPath: store.file(of: manifest)))
        #expect(try SnapshotStore(path: directory.file("snapshots")).snapshots.isEmpty)
    }

    @Test func `what a crash left unfinished is removed and a newer version's files are not`() throws {
        defer { directory.remove() }
        let path = directory.file("snapshots")
        let manifest = try SnapshotStore(path: path).take(from: try state("s", through: 30), at: now)
        for name in ["taking.tmp", "manifest.tmp", "orphan.sqlite", "broken.manifest", "install.tmp"] {
            try directory.write("x", to: "snapshots/\(name)")
        }
        let newer = Array("{\"format\":2}\n".utf8)
        // CRC-32C of that line.
        try directory.write("{\"format\":2}\n\(checksum(newer))\n", to: "snapshots/later.manifest")
        try directory.write("x", to: "snapshots/later.sqlite")
        let store = try SnapshotStore(path: path)
        #expect(store.snapshots == [manifest])
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: path).sorted() == [
                "\(manifest.name).manifest", "\(manifest.name).sqlite", "later.manifest", "later.sqlite",
            ])
    }

    /// Bit by bit, independent of the one under test.
    private func checksum(_ bytes: [UInt8]) -> String {
        var sum: UInt32 = ~0
        for byte in bytes {
            sum ^= UInt32(byte)
            for _ in 0..<8 { sum = sum & 1 == 1 ? sum >> 1 ^ 0x82F6_3B78 : sum >> 1 }
        }
        let text = String(~sum, radix: 16)
        return String(repeating: "0", count: 8 - text.count) + text
    }

    // MARK: - Recovery

    @Test func `a state can begin a new cluster, once, with its content as it was`() throws {
        defer { directory.remove() }
        let state = try state("s", through: 60)
        try state.beginCluster(id: "cluster-2")
        try state.beginCluster(id: "cluster-2")
        let meta = try state.read { try $0.meta() }
        #expect(meta.clusterID == "cluster-2")
        #expect(meta.previousClusterID == "cluster-1")
        #expect(meta.appliedIndex == 60)
    }

    @Test func `a restored state begins far above what anybody watched`() throws {
        defer { directory.remove() }
        let state = try state("s", through: 60)
        let configs = try state.read { try $0.configs().count }
        let position = LogPosition(index: 1_000_060, term: 1_002)
        for _ in 0..<2 {
            try state.restore(clusterID: "cluster-2", membership: Membership(voters: [9]), at: position)
        }
        let meta = try state.read { try $0.meta() }
        #expect(meta.snapshotPosition == position)
        #expect(meta.configuration == ConfigurationPoint(index: 1_000_060, membership: Membership(voters: [9])))
        #expect(meta.previousClusterID == "cluster-1")
        #expect(
            try state.events(after: 60, limit: 5) == .compacted(oldest: 1_000_061, applied: 1_000_060))
        let put = PutConfig(config: ObjectKey(name: "new"), data: "", condition: .none)
        _ = try state.apply([
            .init(index: 1_000_061, term: 1_002, command: Command(at: now, change: .putConfig(put)))
        ])
        #expect(try state.read { try $0.configs().count } == configs + 1)
        guard case .events(let events, 1_000_061) = try state.events(after: 1_000_060, limit: 5) else {
            Issue.record("new events are told")
            return
        }
        #expect(events.count == 1)
    }
}

extension MetaRow {
    fileprivate var snapshotPosition: LogPosition { LogPosition(index: appliedIndex, term: appliedTerm) }
}

/// A value several threads of a test share.
private final class Locked<Value: Sendable>: @unchecked Sendable {
    private let lock = NSLock()
    private var content: Value

    init(_ value: Value) {
        content = value
    }

    var value: Value { lock.withLock { content } }
    func set(_ value: Value) { lock.withLock { content = value } }
    func change(_ body: (inout Value) -> Void) { lock.withLock { body(&content) } }
}
