import Foundation
import Synchronization
import TestProcess

@testable import LinuxSystem

/// A Python process that holds memory, and carries out statements.
final class OtherProcess: Sendable {
    private let process: TestProcess
    private let socket: SharedSocket
    private let input: TestPipe
    private let output: TestPipe
    private let count = Atomic<Int>(0)

    /// The functions that statements may use.
    private static let prelude = """
        import array, ctypes, mmap, os, socket, sys
        c = ctypes.CDLL(None)
        private = lambda n, flags=0: mmap.mmap(-1, n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flags)
        address = lambda m: ctypes.addressof(ctypes.c_char.from_buffer(m))
        content = lambda path: open(path, 'rb').read()
        hand = lambda f: s.sendmsg([b'f'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [f]))])
        unmap = lambda m, first, count: c.munmap(ctypes.c_size_t(address(m) + first), ctypes.c_size_t(count))
        s = socket.socket(socket.AF_UNIX)
        s.connect(sys.argv[1])
        for line in sys.stdin:
            r = ''
            exec(line)
            print(r, flush=True)
        """

    init() throws {
        input = try TestPipe()
        output = try TestPipe()
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).sock").path
        let listener = try Listener(at: .unix(path: path))
        process = try TestProcess(
            "/usr/bin/env",
            ["python3", "-c", OtherProcess.prelude, path],
            input: input.reader,
            output: output.writer
        )
        output.closeWriter()
        socket = try Connection.accept(from: listener)
    }

    /// Runs statements of Python, which are one line.
    ///
    /// - Returns: what they assigned to `r`.
    @discardableResult
    func run(_ statements: String) throws -> String {
        let line = Array("\(statements)\n".utf8)
        guard write(input.writer, line, line.count) == line.count else { throw Missing(what: "a process that reads") }
        var answer: [UInt8] = []
        while answer.last != UInt8(ascii: "\n") {
            guard let piece = output.read() else { throw Missing(what: "a process that can \(statements)") }
            answer += piece
        }
        return String(decoding: answer.dropLast(), as: UTF8.self)
    }

    /// The number of the next piece of memory, which names it.
    private func next() -> Int { count.add(1, ordering: .relaxed).newValue }

    /// Private memory with the content of a region; `m1` if it is the first piece of memory, then `m2`.
    func copy(
        of region: MemoryRegion,
        free: @escaping @Sendable (Range<Int>) -> Void = { _ in }
    ) throws -> SourceRegion {
        let number = next()
        let file = try OtherProcess.file(with: region)
        let flags = region.pageSize == 4096 ? 0 : 0x40000  // MAP_HUGETLB
        let answer = try run(
            "m\(number) = private(\(region.byteCount), \(flags)); m\(number)[:] = content('\(file.path)'); "
                + "r = address(m\(number))"
        )
        return try memory(at: answer, pageSize: region.pageSize, pageCount: region.pageCount, free: free)
    }

    /// Memory at an address of the process.
    func memory(
        at address: String,
        pageSize: Int = 4096,
        pageCount: Int,
        free: @escaping @Sendable (Range<Int>) -> Void = { _ in }
    ) throws -> SourceRegion {
        guard let address = UInt64(address) else { throw Missing(what: "an address instead of \(address)") }
        let range = PageRange(address: address, pageSize: pageSize, pageCount: pageCount)
        return .ofProcess(
            ProcessRegion(range, of: ProcessMemory(of: try PeerProcess(peerOf: socket.stream)), free: free)
        )
    }

    /// A memory file with the content of a region, which ends with it; `f1` if it is the first piece of memory.
    ///
    /// - Parameter offset: where the region begins in the file, in bytes.
    func file(with region: MemoryRegion, at offset: Int = 0) throws -> SourceRegion {
        let number = next()
        let file = try OtherProcess.file(with: region)
        let flags = region.pageSize == 4096 ? 0 : 4  // MFD_HUGETLB
        // A file of huge pages can only be filled through a mapping.
        try run(
            "f\(number) = os.memfd_create('memory', \(flags)); os.truncate(f\(number), \(offset + region.byteCount)); "
                + "m\(number) = mmap.mmap(f\(number), \(offset + region.byteCount)); "
                + "m\(number)[\(offset):] = content('\(file.path)'); hand(f\(number))"
        )
        let message = try socket.stream.receiveDescriptors(maxBytes: 1)
        return .ofFile(try message.region(of: 0, from: UInt64(offset), like: region.range))
    }

    private static func file(with region: MemoryRegion) throws -> MemoryFile {
        let file = try MemoryFile(name: "content", byteCount: region.byteCount)
        try file.write(Array(UnsafeRawBufferPointer(start: region.base, count: region.byteCount)))
        return file
    }

    /// Memory with a userfaultfd that is registered for it, as a process hands it over that waits for a workload.
    struct Waiting: ~Copyable {
        let userfaultfd: Userfaultfd
        let range: PageRange
        /// This process's own mapping of the memory; nil for private memory.
        let alias: MemoryAlias?
    }

    /// Memory that no page has arrived in; `m` in the process.
    ///
    /// - Parameters:
    ///   - pageCount: the memory's size.
    ///   - isFile: whether the memory is a file's, which is `f`.
    ///   - features: the features of the userfaultfd.
    func waiting(pageCount: Int, isFile: Bool, features: Userfaultfd.Features) throws -> Waiting {
        let bits = features.union(isFile ? .minorShmem : []).rawValue
        let answer = try run(
            "import fcntl, struct, threading; u = c.syscall(\(OtherProcess.userfaultfd), 0o2004000); "
                + "fcntl.ioctl(u, 0xc018aa3f, struct.pack('QQQ', 0xaa, \(bits), 0)); "
                + "f = os.memfd_create('m'); os.truncate(f, \(pageCount * 4096)); "
                + "m = \(isFile ? "mmap.mmap(f, " : "private(")\(pageCount * 4096)); "
                + "s.sendmsg([b'u'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [u, f]))]); r = address(m)"
        )
        let message = try socket.stream.receiveDescriptors(maxBytes: 1)
        guard let address = UInt64(answer) else { throw Missing(what: "an address instead of \(answer)") }
        let range = PageRange(address: address, pageSize: 4096, pageCount: pageCount)
        let alias = isFile ? try message.alias(of: 1, from: 0, like: range) : nil
        let userfaultfd = try message.takeUserfaultfd(serving: .events)
        if isFile { try userfaultfd.registerMinor(range) } else { try userfaultfd.register(range) }
        return Waiting(userfaultfd: userfaultfd, range: range, alias: alias)
    }

    #if arch(x86_64)
    private static let userfaultfd = 323
    #else
    private static let userfaultfd = 282
    #endif

    /// Waits until a thread of a process waits for a missing page.
    ///
    /// - Returns: false if the process has ended.
    static func waitForFault(of process: String) -> Bool {
        while let place = ProcessFile.text("/proc/\(process)/wchan") {
            if place == "handle_userfault" { return true }
            guard ProcessFile.text("/proc/\(process)/stat")?.contains(") Z ") == false else { return false }
            JoinedThread.yield()
        }
        return false
    }

    /// Kills the process, and waits until it has ended.
    func kill() { process.kill() }
}
