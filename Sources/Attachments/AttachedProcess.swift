import Guest
import LinuxSystem

/// The connection to a process that has handed its memory over: what it is told, and what it answers.
///
/// Each message is a u32 kind and a u32 number of bytes that follow, little-endian. To the process: DEVICE (its name as
/// u16 length and UTF-8, then its state), LOAD, RUN, REFUSED (a reason), which may also answer the hand-off itself, and
/// WHOLE after RUN, once all pages have come. From the process: DONE, which answers LOAD and RUN, or FAILED (a reason),
/// which answers either. WHOLE has no answer, and a process need not read it.
final class AttachedProcess: Sendable {
    private enum Order: UInt32 {
        case refused = 1, device, load, run, whole
    }

    private enum Answer: UInt32 {
        case done = 0x101, failed
    }

    private static let maxReasonBytes = 1024

    private let socket: StreamSocket
    /// The process itself; nil where it cannot be seen, as from inside of a PID namespace.
    private let peer: Peer?

    private final class Peer: Sendable {
        let process: PeerProcess
        init(of socket: borrowing StreamSocket) throws(SystemError) { process = try PeerProcess(peerOf: socket) }
    }

    init(_ socket: consuming StreamSocket) {
        peer = try? Peer(of: socket)
        self.socket = socket
    }

    /// Its number, as this process sees it; nil where it cannot be seen.
    var id: Int32? { peer?.process.id }

    /// Keeps an object until the process has ended: it may read its memory as long as it lives.
    func keep(_ object: any AnyObject & Sendable) {
        guard let peer else { return KeptObjects.keep(object) }
        KeptObjects.keep(object) { peer.process.waitForEnd() }
    }

    /// Who it is: `process PID`.
    var name: String { socket.peer }

    /// Lets the process load the devices' states.
    func load(_ saved: [DeviceSet.Saved]) throws {
        for device in saved {
            var payload = withUnsafeBytes(of: UInt16(device.name.utf8.count).littleEndian) { Array($0) }
            payload += device.name.utf8
            payload += device.state
            try send(.device, payload)
        }
        try send(.load)
        try awaitDone("load its devices")
    }

    /// Lets the process run.
    ///
    /// - Returns: whether the process answered DONE. A process that hangs up or answers anything else may have run, so
    ///   it counts as started and as ended; its connection is closed.
    /// - Throws: when it provably has not run: RUN did not leave, or it answered FAILED.
    func run() throws -> Bool {
        try send(.run)
        do {
            try awaitDone("start")
            return true
        } catch let failure as ProcessFailure {
            throw AttachmentError(failure.description)
        } catch {
            socket.shutdown()
            return false
        }
    }

    /// Tells the process that all of its memory is there, and that nothing more is placed: the memory is its own.
    func tellWhole() throws {
        try send(.whole)
    }

    /// Tells the process that it is not wanted.
    func refuse(_ reason: String) throws {
        try send(.refused, Array(reason.utf8.prefix(AttachedProcess.maxReasonBytes)))
    }

    /// Waits until the process has closed its end.
    func waitForEnd() {
        withUnsafeTemporaryAllocation(byteCount: 1, alignment: 1) { byte in
            // Whatever it says after RUN is of no interest; only its end is.
            while let count = try? socket.receive(into: byte), count > 0 {}
        }
    }

    private func send(_ order: Order, _ payload: [UInt8] = []) throws {
        let header = [order.rawValue.littleEndian, UInt32(payload.count).littleEndian]
        try socket.send(header.withUnsafeBytes { Array($0) } + payload)
    }

    private func awaitDone(_ what: String) throws {
        let header = try receive(8)
        let (kind, count) = header.withUnsafeBytes {
            (
                UInt32(littleEndian: $0.load(as: UInt32.self)),
                UInt32(littleEndian: $0.load(fromByteOffset: 4, as: UInt32.self))
            )
        }
        guard let answer = Answer(rawValue: kind), count <= AttachedProcess.maxReasonBytes else {
            throw AttachmentError("\(name) answered with a message of kind \(kind) and \(count) bytes")
        }
        let payload = try receive(Int(count))
        guard answer == .done else {
            throw ProcessFailure(description: "\(name) cannot \(what): \(String(decoding: payload, as: UTF8.self))")
        }
    }

    private func receive(_ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let received = try bytes.withUnsafeMutableBytes { try socket.receive(exactly: $0) }
        guard received == count else { throw AttachmentError("\(name) has ended") }
        return bytes
    }
}

/// What a process answered FAILED with.
private struct ProcessFailure: Error, CustomStringConvertible {
    let description: String
}
