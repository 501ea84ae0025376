import Glibc
import OwnThread
import SystemPackage
import Testing

@testable import LinuxSystem

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct SocketTests {
    @Test func `gathered pieces arrive in order through a buffer that is too small`() throws {
        let (sender, receiver) = try SocketPair.tcp()
        // Three MiB in pieces of odd sizes, which no single send can take.
        let sizes = (0..<900).map { 1 + ($0 * 7919) % 7000 }
        let total = sizes.reduce(0, +)
        let content = UnsafeMutableRawBufferPointer.allocate(byteCount: total, alignment: 1)
        defer { content.deallocate() }
        for index in 0..<total { content[index] = UInt8(truncatingIfNeeded: index &* 31 >> 3) }
        let expected = Array(content)
        let received = Received()
        let thread = try JoinedThread(name: "receive") { received.take(total, from: receiver.socket) }
        var gather = GatherBuffer(capacity: sizes.count)
        var offset = 0
        for size in sizes {
            gather.append(try #require(content.baseAddress) + offset, byteCount: size)
            offset += size
        }
        try sender.socket.send(&gather)
        thread.join()
        #expect(received.bytes == expected)
    }

    @Test(arguments: [true, false])
    func `shutdown ends a waiting receive`(onUnixSocket: Bool) throws {
        let (one, other) = try onUnixSocket ? SocketPair.unix() : SocketPair.tcp()
        let received = Received()
        let thread = try JoinedThread(name: "receive") { received.take(1, from: one.socket) }
        one.socket.shutdown()
        thread.join()
        #expect(received.bytes == [])
        _ = other
    }

    @Test(arguments: [true, false])
    func `shutdown ends a waiting accept`(onUnixSocket: Bool) throws {
        try withSocketPath { path in
            let listener = try SharedListener(onUnixSocket ? .unix(path: path) : .tcp(host: "127.0.0.1", port: 0))
            let outcome = Counts()
            let thread = try JoinedThread(name: "accept") {
                if (try? SocketPair.accept(from: listener.listener)) == nil { outcome.add(1) }
            }
            listener.listener.shutdown()
            thread.join()
            #expect(outcome.sum == 1)
        }
    }

    @Test func `the kernel adapts the buffers of a TCP connection, since no size was set`() throws {
        let (one, other) = try SocketPair.tcp()
        for end in [one, other] {
            try end.socket.tolerateSilence(of: .seconds(30))
            // socket(7): SO_BUF_LOCK says which buffers have a size that was set.
            var (locks, length) = (CInt(-1), socklen_t(MemoryLayout<CInt>.size))
            #expect(getsockopt(end.socket.descriptor.raw, SOL_SOCKET, 72, &locks, &length) == 0)
            #expect(locks == 0)
        }
    }

    @Test func `a TCP connection has a round trip from its beginning, and a Unix socket has none`() throws {
        let (tcp, _) = try SocketPair.tcp()
        let roundTrip = tcp.socket.roundTrip ?? .zero
        #expect(roundTrip > .zero && roundTrip < .seconds(1), "\(roundTrip)")
        let (unix, _) = try SocketPair.unix()
        let none = unix.socket.roundTrip
        #expect(none == nil)
    }

    @Test func `the end of a peer's stream is distinguished from bytes`() throws {
        let (one, other) = try SocketPair.tcp()
        try other.socket.send([1, 2, 3])
        other.socket.shutdown()
        var bytes = [UInt8](repeating: 0, count: 8)
        #expect(try bytes.withUnsafeMutableBytes { try one.socket.receive(exactly: $0) } == 3)
        #expect(try bytes.withUnsafeMutableBytes { try one.socket.receive(into: $0) } == 0)
        #expect(bytes.prefix(3) == [1, 2, 3])
    }

    @Test func `sending to a peer that is gone is an error that names it`() throws {
        let (one, other) = try SocketPair.unix()
        other.socket.shutdown()
        let error = try #require(throws: SystemError.self) { try one.socket.send([UInt8](repeating: 0, count: 10)) }
        #expect(error.errno == .brokenPipe)
        #expect("\(error)".hasPrefix("cannot send to "))
    }

    @Test func `a receive times out`() throws {
        let (one, _other) = try SocketPair.tcp()
        try one.socket.setReceiveTimeout(seconds: 1)
        var byte: UInt8 = 0
        let error = try #require(throws: SystemError.self) {
            try withUnsafeMutableBytes(of: &byte) { _ = try one.socket.receive(into: $0) }
        }
        #expect(error.errno == .timedOut)
        withExtendedLifetime(_other) {}
    }

    @Test func `a peer that sends byte by byte does not extend a deadline`() throws {
        let (one, other) = try SocketPair.tcp()
        let stop = try SharedFlag()
        let trickle = try JoinedThread(name: "trickle") {
            // The pause is the slow peer's behaviour; the test does not wait for a state here.
            while !stop.flag.wait(seconds: 0), (try? other.socket.send([0])) != nil { usleep(10_000) }
        }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let begin = MonotonicClock.now()
        let error = try #require(throws: SystemError.self) {
            try bytes.withUnsafeMutableBytes { _ = try one.socket.receive(exactly: $0, before: begin + 200_000_000) }
        }
        stop.flag.raise()
        trickle.join()
        #expect(error.errno == .timedOut)
        #expect(MonotonicClock.now() - begin >= 200_000_000)
    }

    @Test func `only its owner can connect to a Unix listener`() throws {
        try withSocketPath { path in
            let listener = try Listener(at: .unix(path: path))
            var status = stat()
            #expect(stat(path, &status) == 0)
            #expect(status.st_mode & 0o777 == 0o600)
            let client = try StreamSocket(connectingTo: .unix(path: path))
            let accepted = try SocketPair.accept(from: listener)
            #expect(accepted.socket.peer == "process \(getpid())")
            #expect(client.peer == "unix:\(path)")
            listener.file?.remove()
            #expect(access(path, F_OK) != 0)
        }
    }

    @Test func `the error about a port in use says what to do`() throws {
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let error = try #require(throws: SystemError.self) { _ = try Listener(at: listener.address) }
        #expect(
            "\(error)" == "cannot listen at \(listener.address): Address already in use; "
                + "choose a free port, or 0 for any"
        )
    }

    @Test func `the error about an address of another host says what to do`() throws {
        // The address is from a block that is reserved for documentation.
        let address = SocketAddress.tcp(host: "192.0.2.1", port: 0)
        let error = try #require(throws: SystemError.self) { _ = try Listener(at: address) }
        #expect(
            "\(error)" == "cannot listen at \(address): Cannot assign requested address; choose an address of this host"
        )
    }

    @Test func `the error about a path in use says what to do`() throws {
        try withSocketPath { path in
            let listener = try Listener(at: .unix(path: path))
            let error = try #require(throws: SystemError.self) { _ = try Listener(at: listener.address) }
            #expect(
                "\(error)" == "cannot listen at unix:\(path): Address already in use; "
                    + "another process listens there; choose another path"
            )
        }
    }

    @Test func `a socket file without a listener is replaced`() throws {
        try withSocketPath { path in
            do {
                let ended = try Listener(at: .unix(path: path))
                // A child of another test may hold a copy of the socket until it calls exec.
                ended.shutdown()
            }
            #expect(access(path, F_OK) == 0)
            let listener = try Listener(at: .unix(path: path))
            let client = try StreamSocket(connectingTo: listener.address)
            #expect(client.peer == "unix:\(path)")
        }
    }

    @Test func `a listener removes only its own socket file`() throws {
        try withSocketPath { path in
            let earlier = try Listener(at: .unix(path: path))
            unlink(path)
            let later = try Listener(at: .unix(path: path))
            earlier.file?.remove()
            #expect(access(path, F_OK) == 0)
            later.file?.remove()
            #expect(access(path, F_OK) != 0)
        }
    }

    @Test func `the errors about a plain file, a missing folder and a long path say what to do`() throws {
        try withSocketPath { path in
            close(open(path, O_CREAT | O_WRONLY, 0o600))
            let obstacle = try #require(throws: SystemError.self) { _ = try Listener(at: .unix(path: path)) }
            #expect(
                "\(obstacle)" == "cannot listen at unix:\(path): File exists; a file that is no socket is there; "
                    + "choose another path"
            )
            #expect(access(path, F_OK) == 0)
            let missing = try #require(throws: SystemError.self) { _ = try Listener(at: .unix(path: "\(path)/x")) }
            #expect(missing.errno == .notDirectory)
            let long = String(repeating: "x", count: 256)
            let error = try #require(throws: SystemError.self) { _ = try Listener(at: .unix(path: long)) }
            #expect(error.errno == .fileNameTooLong)
        }
    }

    @Test func `a descriptor that other code has opened can be made close-on-exec`() throws {
        let descriptor = open("/dev/null", O_RDONLY)
        defer { close(descriptor) }
        #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC == 0)
        try closeOnExec(descriptor)
        #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC == FD_CLOEXEC)
    }

    @Test func `the error about a refused connection says what to do`() throws {
        let address = try { try Listener(at: .tcp(host: "127.0.0.1", port: 0)).address }()
        let error = try #require(throws: SystemError.self) { _ = try StreamSocket(connectingTo: address) }
        #expect(
            "\(error)" == "cannot connect to \(address): Connection refused; check the port, and that the other side "
                + "listens there"
        )
    }

    @Test func `the error about an unknown host says what to do`() throws {
        let error = try #require(throws: SystemError.self) {
            _ = try StreamSocket(connectingTo: .tcp(host: "no host at all", port: 1))
        }
        // The resolver's reason stands alone, without an error of the kernel.
        #expect(
            "\(error)".wholeMatch(of: /cannot resolve the host 'no host at all': [A-Z][a-z ]+; check its name/) != nil
        )
    }

    @Test(arguments: ["", "/" + String(repeating: "x", count: 4095), "/a\0b"])
    func `the error about an invalid socket path says what to do`(path: String) throws {
        for body in [
            { _ = try Listener(at: .unix(path: path)) }, { _ = try StreamSocket(connectingTo: .unix(path: path)) },
        ] as [() throws -> Void] {
            let error = try #require(throws: SystemError.self) { try body() }
            #expect("\(error)".hasSuffix("; a socket's path has 1 to 4095 bytes"))
            #expect("\(error)".contains(" unix:\(path): "))
        }
    }

    @Test func `the first working address of a host is used`() throws {
        let resolved = try Self.resolved("127.0.0.1", "127.0.0.2", "127.0.0.3")
        #expect(resolved.count == 3)
        var tried = 0
        let last = try resolved.tryEach { (_, name, _) throws(SystemError) in
            tried += 1
            guard tried > 1 else { throw SystemError("connect", .connectionRefused) }
            return UnsafeRawPointer(name).load(fromByteOffset: 7, as: UInt8.self)
        }
        #expect(last == 2)
        #expect(tried == 2)
    }

    @Test func `if no address of a host works, the error is that of the last`() throws {
        let resolved = try Self.resolved("127.0.0.1", "127.0.0.2")
        var tried = 0
        let error = try #require(throws: SystemError.self) {
            try resolved.tryEach { (_, _, _) throws(SystemError) in
                tried += 1
                throw SystemError("connect", tried == 1 ? .connectionRefused : .timedOut)
            }
        }
        #expect(error.errno == .timedOut)
    }

    /// The result of a resolver for a host with several addresses.
    private static func resolved(_ addresses: String...) throws -> ResolvedAddress {
        var hints = addrinfo()
        hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        for address in addresses.reversed() {
            var found: UnsafeMutablePointer<addrinfo>?
            guard getaddrinfo(address, "1", &hints, &found) == 0, let found else { throw CannotPrepare(what: address) }
            found.pointee.ai_next = list
            list = found
        }
        guard let list else { throw CannotPrepare(what: "an address") }
        return ResolvedAddress(adopting: list)
    }

    #if DEBUG
    @Test(arguments: [Errno.tooManyOpenFiles, .tooManyOpenFilesInSystem, .noBufferSpace, .noMemory])
    func `a connection waits during a shortage, and the next try accepts it`(errno: Errno) throws {
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let client = try StreamSocket(connectingTo: listener.address)
        let told = try ForcedErrno.with([.accept4: [errno]]) {
            if case .shortage(let error) = try listener.next() { error.errno } else { nil as Errno? }
        }
        #expect(told == errno)
        #expect(try listener.accept() != nil)
        // The kernel reports a shortage before it reports the shutdown.
        listener.shutdown()
        let isOver = try ForcedErrno.with([.accept4: [errno]]) {
            if case .shutDown = try listener.next() { true } else { false }
        }
        #expect(isOver)
        withExtendedLifetime(client.peer) {}
    }

    @Test func `a host that cannot be resolved for want of descriptors is not called unknown`() throws {
        let error = try #require(throws: SystemError.self) {
            try ForcedErrno.with([.eventfd: [.tooManyOpenFiles]]) {
                _ = try StreamSocket(connectingTo: .tcp(host: "no host at all", port: 1))
            }
        }
        #expect("\(error)" == "cannot resolve the host 'no host at all': Too many open files; raise `ulimit -n`")
    }

    @Test(arguments: [Errno.connectionAbort, .protocolError, .networkDown])
    func `a connection that ends before it is accepted is skipped`(errno: Errno) throws {
        let listener = try Listener(at: .tcp(host: "127.0.0.1", port: 0))
        let client = try StreamSocket(connectingTo: listener.address)
        let accepted = try ForcedErrno.with([.accept4: [errno]]) { try listener.accept() != nil }
        #expect(accepted)
        withExtendedLifetime(client.peer) {}
    }
    #endif
}
