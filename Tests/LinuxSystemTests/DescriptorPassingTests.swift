import Foundation
import Glibc
import LinuxSystem
import OwnThread
import TestProcess
import Testing

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

    @Test func `bytes without a descriptor say that none came`() throws {
        let (one, other) = try SocketPair.unix()
        try one.socket.send([1])
        let message = try other.socket.receiveDescriptors(maxBytes: 100)
        #expect(message.descriptorCount == 0)
        #expect(refusal(of: message) == "no descriptor came with the message")
    }

    @Test func `something else than a userfaultfd is refused`() throws {
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
            // Pipes have names of their own in /proc/self/fd, by which a leaked copy would be found.
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

    @Test func `a userfaultfd with events that are not served is refused`() throws {
        let (one, other) = try SocketPair.unix()
        try one.socket.send([1], with: Userfaultfd(features: .eventRemove))
        let message = try other.socket.receiveDescriptors(maxBytes: 100)
        #expect(refusal(of: message)?.contains("EVENT_REMOVE, which are not served; open it without them") == true)
    }

    /// Why a descriptor is not taken as a userfaultfd.
    private func refusal(of message: consuming StreamSocket.DescriptorMessage) -> String? {
        do throws(HandedDescriptorError) {
            _ = try message.takeUserfaultfd()
            return nil
        } catch {
            return error.description
        }
    }

    /// Where the descriptors of this process lead.
    private func openFiles() -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
        return names.compactMap { try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\($0)") }
    }

    /// Runs statements of Python with `s` connected to a Unix socket, and returns the line it prints.
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
