import Foundation
import Glibc
import OwnThread
import SystemPackage
import TestProcess
import Testing

@testable import LinuxSystem

@Suite(.ownThread, .timeLimit(.minutes(1)))
struct DescriptorPassingTests {
    @Test func `a userfaultfd that was handed over answers faults`() throws {
        let (one, other) = try SocketPair.unix()
        let region = try MemoryRegion(name: "handed", pageCount: 1)
        let content = try pages(5)
        do {
            let userfaultfd = try Userfaultfd()
            try userfaultfd.register(region.range)
            try one.socket.send([1, 2, 3], with: userfaultfd)
        }
        let message = try other.socket.receiveDescriptors(maxBytes: 100)
        #expect(message.bytes == [1, 2, 3])
        #expect(message.descriptorCount == 1)
        let handed = try message.takeUserfaultfd()
        #expect(handed.copy(to: region.range.address, from: content.base, byteCount: 4096) == .placed(bytes: 4096))
        #expect(region.base.load(as: UInt8.self) == 5)
    }

    @Test func `a message without a descriptor is refused with that reason`() throws {
        let (one, other) = try SocketPair.unix()
        try one.socket.send([1])
        let message = try other.socket.receiveDescriptors(maxBytes: 100)
        #expect(message.descriptorCount == 0)
        #expect(refusal(of: message) == "no descriptor came with the message")
    }

    @Test func `a descriptor that is not a userfaultfd is refused`() throws {
        try withSocketPath { path in
            let listener = try Listener(at: .unix(path: path))
            try python(
                "import array; s.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))])",
                path
            )
            let socket = try SocketPair.accept(from: listener)
            let message = try socket.socket.receiveDescriptors(maxBytes: 100)
            #expect(message.descriptorCount == 1)
            #expect(refusal(of: message) == "the descriptor is no userfaultfd")
        }
    }

    @Test(arguments: [3, 16, 40])
    func `many descriptors are counted and closed`(count: Int) throws {
        try withSocketPath { path in
            let listener = try Listener(at: .unix(path: path))
            // A pipe has a unique name in /proc/self/fd, by which the test would find a leaked copy.
            let output = try python(
                "import array, os; p = os.pipe(); print(os.readlink('/proc/self/fd/%d' % p[0])); "
                    + "s.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', p[:1] * \(count)))])",
                path
            )
            let socket = try SocketPair.accept(from: listener)
            do {
                let message = try socket.socket.receiveDescriptors(maxBytes: 100)
                #expect(message.descriptorCount == min(count, 17))
            }
            #expect(!openFiles().contains(output))
        }
    }

    @Test func `a userfaultfd with unsupported events is refused`() throws {
        let (one, other) = try SocketPair.unix()
        try one.socket.send([1], with: Userfaultfd(features: .eventRemove))
        let message = try other.socket.receiveDescriptors(maxBytes: 100)
        #expect(refusal(of: message)?.contains("EVENT_REMOVE, which are not served; open it without them") == true)
    }

    @Test func `copies of a userfaultfd are told from another userfaultfd`() throws {
        let one = try Userfaultfd()
        let other = try Userfaultfd()
        let copy = try one.duplicate()
        #expect(one.isSame(as: copy) == true)
        #expect(one.isSame(as: one) == true)
        #expect(one.isSame(as: other) == false)
        let (sender, receiver) = try SocketPair.unix()
        try sender.socket.send([1], with: one)
        let handed = try receiver.socket.receiveDescriptors(maxBytes: 100).takeUserfaultfd()
        #expect(handed.isSame(as: one) == true)
        #expect(handed.isSame(as: other) == false)
    }

    #if DEBUG
    @Test func `a shortage of descriptors is not taken for a descriptor of another kind`() throws {
        let (one, other) = try SocketPair.unix()
        try one.socket.send([1], with: Userfaultfd())
        let reason = try ForcedErrno.with([.open: [.tooManyOpenFiles]]) {
            refusal(of: try other.socket.receiveDescriptors(maxBytes: 100))
        }
        #expect(reason?.contains("Too many open files; raise `ulimit -n`") == true, "\(reason ?? "")")
    }

    @Test func `a process that cannot be watched for want of descriptors is reported as such`() throws {
        let (one, _other) = try SocketPair.unix()
        let error = try #require(throws: SystemError.self) {
            try ForcedErrno.asking(FailingCall(.getsockopt, number: 3, .tooManyOpenFiles).judge) {
                _ = try PeerProcess(peerOf: one.socket)
            }
        }
        #expect("\(error)" == "cannot watch process \(getpid()): Too many open files; raise `ulimit -n`")
        withExtendedLifetime(_other) {}
    }

    /// Makes one call of a kind fail, the first being number 1.
    private final class FailingCall: Sendable {
        private let calls = Counts()
        private let (kind, number, errno): (SystemCall, Int, Errno)

        init(_ kind: SystemCall, number: Int, _ errno: Errno) {
            (self.kind, self.number, self.errno) = (kind, number, errno)
        }

        var judge: ForcedErrno.Judge {
            { [self] call in
                guard call == kind else { return nil }
                calls.add(1)
                return calls.sum == number ? errno : nil
            }
        }
    }
    #endif

    @Test func `a process has one identity, and another process another`() throws {
        let (one, _other) = try SocketPair.unix()
        let own = try PeerProcess(peerOf: one.socket).identity
        #expect(own != nil)
        #expect(try PeerProcess(peerOf: one.socket).identity == own)
        try withSocketPath { path in
            let listener = try Listener(at: .unix(path: path))
            let child = try TestProcess("/usr/bin/python3", ["-c", Self.connecting, path])
            defer { child.kill() }
            let socket = try SocketPair.accept(from: listener)
            #expect(try PeerProcess(peerOf: socket.socket).identity != own)
        }
        withExtendedLifetime(_other) {}
    }

    /// Connects, and waits until the other end hangs up.
    private static let connecting =
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"

    /// The reason why a descriptor is refused as a userfaultfd; nil if it is accepted.
    private func refusal(of message: consuming StreamSocket.DescriptorMessage) -> String? {
        do throws(HandedDescriptorError) {
            _ = try message.takeUserfaultfd()
            return nil
        } catch {
            return error.description
        }
    }

    /// The targets of this process's descriptors.
    private func openFiles() -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
        return names.compactMap { try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\($0)") }
    }

    /// Runs Python statements with `s` connected to a Unix socket, and returns the printed line.
    @discardableResult
    private func python(_ statements: String, _ path: String) throws -> String {
        let (status, output) = try TestProcess.run(
            "/usr/bin/env",
            ["python3", "-c", "import socket; s = socket.socket(socket.AF_UNIX); s.connect('\(path)'); \(statements)"]
        )
        #expect(status == 0)
        return output.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
