import Guest
import LinuxSystem
import PageProtocol
import Synchronization

/// The connection to a process that has handed over its memory, and the requests and answers on it.
///
/// Each message begins with two little-endian u32: its kind, and the number of bytes that follow. The article
/// <doc:AttachAProcess> describes the messages of version 3, and <doc:HandOffVersions1And2> those of the versions before.
final class AttachedProcess: Sendable {
    /// A message of the agent, and the kinds that a process sends while it answers SAVE.
    enum Order: UInt32 {
        case refused = 1, device, load, run, complete, accepted, data
        case prepare, stop, save, depart, resume, release, verify, free

        /// What the process cannot do if it answers FAILED.
        fileprivate var deed: String {
            switch self {
            case .load: "load its devices"
            case .run: "start"
            case .complete: "take note that its memory is complete"
            case .prepare: "prepare to move"
            case .stop: "stop"
            case .save: "save its devices"
            case .depart: "leave"
            case .resume: "resume"
            case .release: "take note that it runs elsewhere"
            case .verify: "verify its memory"
            case .refused, .device, .accepted, .data, .free: "do that"
            }
        }
    }

    private enum Answer: UInt32 {
        case done = 0x101, failed
    }

    /// Most bytes of a message's content.
    private static let maxMessageBytes = 1 << 20
    private static let maxReasonBytes = 1024

    /// The requests that have not been answered in time, and whether the connection is of use.
    private struct Conversation {
        /// Requests whose answers are still to come; such an answer is dropped.
        var late: [Order] = []
    }

    private let socket: SharedSocket
    /// The version of the hand-off, once it is known.
    let version: UInt16
    /// Seconds for one answer; from the first DEVICE for LOAD, before version 3.
    private let answerSeconds: UInt64
    /// The process itself; nil if it is not visible here, for instance because this agent is in a PID namespace.
    private let peer: Peer?
    /// Held while a request waits for its answer.
    private let conversation = Mutex(Conversation())
    /// Why nothing more can be asked; nil if something can.
    private let end = Mutex<String?>(nil)
    /// Raised when the connection is to end.
    private let over: Over?

    private final class Over: Sendable {
        let flag: EventDescriptor
        init() throws(SystemError) { flag = try EventDescriptor() }
    }

    private final class Peer: Sendable {
        let process: PeerProcess
        init(of socket: borrowing StreamSocket) throws(SystemError) { process = try PeerProcess(peerOf: socket) }
    }

    init(_ socket: SharedSocket, version: UInt16, answerSeconds: UInt64) {
        self.version = version
        self.answerSeconds = answerSeconds
        // Without the process, kept memory is never released, and pages that are already present are not found.
        peer = try? Peer(of: socket.stream)
        self.socket = socket
        // Without the event, the thread that waits for the end of the process ends with the process.
        over = try? Over()
    }

    /// The process id in this agent's PID namespace; nil if the process is not visible here.
    var id: Int32? { peer?.process.id }

    /// The name of the program, from `/proc/PID/comm`; nil if the process is not visible here.
    var program: String? {
        id.flatMap { ProcessFile.text("/proc/\($0)/comm") }.map { String($0.prefix { !$0.isNewline }) }
    }

    /// The program and the process, for people; the program of a process that has ended has no name.
    var title: String { program.map { "\($0) (\(name))" } ?? name }

    /// The process's memory, to be read from here.
    ///
    /// - Throws: `SystemError` if the process is not visible here.
    func memory() throws(SystemError) -> ProcessMemory {
        ProcessMemory(of: try PeerProcess(peerOf: socket.stream))
    }

    /// Keeps an object until the process has ended, since the process may read its memory until then.
    func keep(_ object: any AnyObject & Sendable) {
        guard let peer else { return KeptObjects.keep(object) }
        KeptObjects.keep(object) { peer.process.waitForEnd() }
    }

    /// The process for messages: `process PID`.
    var name: String { socket.stream.peer }

    // MARK: The end

    /// Kills the process.
    ///
    /// - Returns: nil, or why that is not possible from here.
    func kill() -> String? {
        guard let peer else { return "it cannot be killed from here" }
        do throws(SystemError) {
            try peer.process.send(.kill)
            return nil
        } catch {
            return "\(error)"
        }
    }

    /// Whether the process is known to have ended, so that nothing of it runs.
    var hasEnded: Bool { peer?.process.hasEnded ?? false }

    /// Whether the process has ended, or has closed its end of the connection.
    var isGone: Bool { hasEnded || socket.stream.hasHungUp }

    /// The message for a process that has closed its end of the connection.
    ///
    /// May take 0.1 s, since a process that ends closes its end a moment before.
    var hangUpReason: String {
        guard let peer else { return "\(name) has ended or hung up" }
        return peer.process.waitForEnd(milliseconds: 100)
            ? "\(name) has ended" : "\(name) has hung up, and may run on"
    }

    /// Waits until the process has ended or closed its end of the connection, or until ``leave()``.
    func waitForEnd() {
        guard version >= 3, let peer, let over else {
            withUnsafeTemporaryAllocation(byteCount: 1, alignment: 1) { byte in
                // Anything that the process sends after its answer to RUN is ignored.
                while let count = try? socket.stream.receive(into: byte), count > 0 {}
            }
            return
        }
        _ = peer.process.waitForEnd(orHangUpOf: socket, or: over.flag)
    }

    /// Why nothing can be asked of the process any more.
    var endReason: String { end.withLock(\.self) ?? hangUpReason }

    /// Ends the connection, for a reason other than the process's.
    func leave(because reason: String? = nil) {
        if let reason { end.withLock { $0 = $0 ?? reason } }
        hangUp()
    }

    private func hangUp() {
        over?.flag.raise()
        socket.stream.shutdown()
    }

    // MARK: Requests

    /// Sends the devices' states, and waits until the process has loaded them.
    ///
    /// - Throws: if the process fails to load a state, hangs up or does not answer in time. It must not be told to run
    ///   afterwards.
    func load(_ saved: [DeviceSet.Saved]) throws {
        let deadline = deadline(of: .load)
        _ = try conversation.withLock { conversation in
            try ask(
                .load,
                in: &conversation,
                before: deadline,
                first: { try saved.forEach { try send($0, before: deadline) } }
            )
        }
    }

    /// Sends a request that is answered without content.
    ///
    /// - Throws: ``ProcessFailure`` if the process answered FAILED; ``NoAnswer`` if it did not answer in time, and may
    ///   still do it; any other error if the connection has ended.
    /// - Parameters:
    ///   - order: the request.
    ///   - note: called when the process has answered DONE, before anything else is asked of it.
    func request(_ order: Order, then note: () -> Void = {}) throws {
        let deadline = deadline(of: order)
        try conversation.withLock { conversation in
            _ = try ask(order, in: &conversation, before: deadline)
            note()
        }
    }

    /// Waits until the present request is answered or has failed.
    func settle() { conversation.withLock { _ in } }

    /// Asks the stopped process for its device states.
    ///
    /// - Parameter meanwhile: called while the process saves.
    func save(_ meanwhile: () throws -> Void) throws -> [DeviceSet.Saved] {
        try ask(.save, before: deadline(of: .save), meanwhile).devices
    }

    /// Asks the stopped process to check its memory.
    ///
    /// - Returns: the pages that were checked, and those that were wrong.
    func verify() throws -> (checked: UInt64, wrong: UInt64) {
        let content = try ask(.verify, before: deadline(of: .verify)).content
        guard content.count == 16 else {
            let error = nonsense("answered VERIFY with \(content.count) bytes instead of two numbers")
            leave(because: error.description)
            throw error
        }
        return content.withUnsafeBytes {
            (
                UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)),
                UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            )
        }
    }

    /// Asks the process to drop pages; there is no answer.
    func free(_ pages: Range<Int>, region: Int) {
        let numbers = [UInt64(region), UInt64(pages.lowerBound), UInt64(pages.count)]
        // A process that has ended, or does not read, keeps its memory, which costs no page.
        try? sendNow(.free, numbers.flatMap { withUnsafeBytes(of: $0.littleEndian) { Array($0) } })
    }

    /// Tells the process that all of its memory has arrived, and that no more pages will be placed in it.
    func tellComplete() throws {
        if version < 3 { try sendNow(.complete) } else { try request(.complete) }
    }

    /// Tells the process that it is attached.
    func accept() throws {
        if version >= 3 { try sendNow(.accepted) }
    }

    /// Tells the process that it will not be used.
    func refuse(_ reason: String) throws {
        let content = Array(reason.utf8.prefix(AttachedProcess.maxReasonBytes))
        let isSent: Void? = try conversation.withLockIfAvailable { _ in
            if end.withLock({ $0 == nil }) { try sendNow(.refused, content) }
        }
        // In the midst of another message, the process could not understand it.
        if isSent == nil { hangUp() }
    }

    // MARK: Messages

    /// The content of an answer.
    private struct Result {
        var content: [UInt8] = []
        var devices: [DeviceSet.Saved] = []
    }

    private func deadline(of order: Order) -> UInt64 {
        MonotonicClock.now() + seconds(for: order) * 1_000_000_000
    }

    private func seconds(for order: Order) -> UInt64 {
        let factor: UInt64
        switch order {
        case .prepare: factor = 10
        case .verify: factor = 20
        case .refused, .device, .load, .run, .complete, .accepted, .data, .stop, .save, .depart, .resume, .release,
            .free:
            factor = 1
        }
        return answerSeconds * factor
    }

    /// The error for a request that was not answered in time.
    private func overdue(_ order: Order) -> NoAnswer {
        let seconds = seconds(for: order)
        return NoAnswer(
            seconds: seconds,
            description: "\(name) did not \(order.deed) within \(seconds) s; see what it waits for"
        )
    }

    private func nonsense(_ what: String) -> AttachmentError { AttachmentError("\(name) \(what)") }

    private func ask(_ order: Order, before deadline: UInt64, _ meanwhile: () throws -> Void = {}) throws -> Result {
        try conversation.withLock { try ask(order, in: &$0, before: deadline, meanwhile) }
    }

    private func ask(
        _ order: Order,
        in conversation: inout Conversation,
        before deadline: UInt64,
        _ meanwhile: () throws -> Void = {},
        first: () throws -> Void = {}
    ) throws -> Result {
        if let end = end.withLock(\.self) { throw NotSent(description: end) }
        do {
            try first()
            try send(order, before: deadline)
        } catch {
            let isOverdue = (error as? SystemError)?.isTimeout == true
            let reason = isOverdue ? overdue(order).description : hangUpReason
            finish(because: reason)
            throw NotSent(description: reason)
        }
        do {
            try meanwhile()
            return try awaitAnswer(to: order, in: &conversation, before: deadline)
        } catch let error as NoAnswer {
            conversation.late.append(order)
            throw error
        } catch let failure as ProcessFailure {
            throw failure
        } catch {
            // After half a message, the process can be asked for no more.
            let end: any Error
            switch error as? SystemError {
            case .none: end = error
            case .some(let error): end = error.isTimeout ? overdue(order) : HangUp(description: hangUpReason)
            }
            finish(because: "\(end)")
            throw end
        }
    }

    /// Notes why nothing more can be asked; before version 3, the caller decides what becomes of the process.
    private func finish(because reason: String) {
        end.withLock { $0 = $0 ?? reason }
        if version >= 3 { hangUp() }
    }

    /// Sends a request without waiting for its answer, which is dropped when it comes.
    ///
    /// - Throws: why the request cannot be sent.
    func post(_ order: Order) throws {
        try conversation.withLock { conversation in
            if let end = end.withLock(\.self) { throw NotSent(description: end) }
            try send(order, before: deadline(of: order))
            conversation.late.append(order)
        }
    }

    private func awaitAnswer(
        to order: Order,
        in conversation: inout Conversation,
        before deadline: UInt64
    ) throws -> Result {
        var arriving = SavedStates(process: name)
        // Why the states are invalid. The messages are intact, so the answer to SAVE still comes.
        var invalid: AttachmentError?
        while true {
            let (kind, count) = try receiveHeader(before: deadline, of: order)
            if version >= 3, count <= AttachedProcess.maxMessageBytes, let part = Order(rawValue: kind) {
                guard order == .save || conversation.late.contains(.save), part == .device || part == .data else {
                    throw nonsense("sent a message of kind \(kind), which is no answer")
                }
                let content = try receive(count, before: rest(deadline))
                // A late answer's states are dropped, and so is what follows an invalid state.
                guard !conversation.late.contains(.save), invalid == nil else { continue }
                do throws(AttachmentError) {
                    try arriving.add(content, begins: part == .device)
                } catch {
                    invalid = error
                }
                continue
            }
            guard let answer = Answer(rawValue: kind), count <= AttachedProcess.maxReasonBytes else {
                throw nonsense("answered with a message of kind \(kind) and \(count) bytes")
            }
            var content = try receive(count, before: rest(deadline))
            if version >= 3 {
                guard count >= 4 else { throw nonsense("answered without saying which request") }
                let answered = content.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self)) }
                content.removeFirst(4)
                if let late = conversation.late.first {
                    guard answered == late.rawValue else { throw wrong(answered) }
                    conversation.late.removeFirst()
                    continue
                }
                guard answered == order.rawValue else { throw wrong(answered) }
            }
            guard answer == .done else {
                let reason = String(decoding: content, as: UTF8.self)
                throw ProcessFailure(description: "\(name) cannot \(order.deed): \(reason)")
            }
            do throws(AttachmentError) {
                if let invalid { throw invalid }
                try arriving.finish()
            } catch {
                throw ProcessFailure(description: error.description)
            }
            return Result(content: content, devices: arriving.devices)
        }
    }

    private func wrong(_ answered: UInt32) -> AttachmentError {
        let request = Order(rawValue: answered).map { "\($0)".uppercased() } ?? "request \(answered)"
        return nonsense("answered \(request), which was not asked, or was answered before")
    }

    private func send(_ device: DeviceSet.Saved, before deadline: UInt64) throws {
        guard version >= 3 else {
            var payload = withUnsafeBytes(of: UInt16(device.name.utf8.count).littleEndian) { Array($0) }
            payload += device.name.utf8
            payload += device.state
            return try send(.device, payload, before: deadline)
        }
        let size = withUnsafeBytes(of: UInt64(device.state.count).littleEndian) { Array($0) }
        try send(.device, size + device.name.utf8, before: deadline)
        var rest = device.state[...]
        while !rest.isEmpty {
            let part = rest.prefix(AttachedProcess.maxMessageBytes)
            try send(.data, Array(part), before: deadline)
            rest = rest.dropFirst(part.count)
        }
    }

    /// Sends a message that has no answer, without waiting for room in the socket's buffer.
    private func sendNow(_ order: Order, _ payload: [UInt8] = []) throws {
        try send(order, payload, before: MonotonicClock.now())
    }

    private func send(_ order: Order, _ payload: [UInt8] = [], before deadline: UInt64) throws {
        let header = [order.rawValue.littleEndian, UInt32(payload.count).littleEndian]
        try socket.stream.send(header.withUnsafeBytes { Array($0) } + payload, before: deadline)
    }

    private func receiveHeader(before deadline: UInt64, of order: Order) throws -> (kind: UInt32, count: Int) {
        let first: [UInt8]
        do {
            first = try receive(1, before: deadline)
        } catch let error as SystemError where error.isTimeout {
            // The time limit explains more than the kernel's error does.
            throw overdue(order)
        }
        let header = first + (try receive(7, before: rest(deadline)))
        return header.withUnsafeBytes {
            (
                UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self)),
                Int(UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
            )
        }
    }

    /// The time limit for the rest of a message that has begun, since nothing can be asked after half a message.
    private func rest(_ deadline: UInt64) -> UInt64 {
        // Before version 3, a half message counts as none.
        version < 3 ? deadline : max(deadline, MonotonicClock.now() + 10_000_000_000)
    }

    private func receive(_ count: Int, before deadline: UInt64) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let received = try bytes.withUnsafeMutableBytes { try socket.stream.receive(exactly: $0, before: deadline) }
        guard received == count else { throw HangUp(description: hangUpReason) }
        return bytes
    }
}

/// The device states that a process sends while it answers SAVE.
struct SavedStates {
    /// The process, for errors.
    let process: String
    /// The states that have arrived completely.
    private(set) var devices: [DeviceSet.Saved] = []
    private var name = ""
    private var state: [UInt8] = []
    private var missing = 0
    /// Bytes that the remaining states may have.
    private var room = Int(Wire.maxDeviceBytes)

    init(process: String) {
        self.process = process
    }

    /// Takes the content of a DEVICE or DATA.
    mutating func add(_ content: [UInt8], begins: Bool) throws(AttachmentError) {
        if begins { return try begin(content) }
        guard !content.isEmpty, content.count <= missing else {
            throw AttachmentError("\(process) sent more state of the device '\(name)' than it announced")
        }
        state += content
        missing -= content.count
        if missing == 0 { end() }
    }

    private mutating func begin(_ content: [UInt8]) throws(AttachmentError) {
        try finish()
        guard (9...8 + Wire.maxNameBytes).contains(content.count),
            let name = String(validating: content.dropFirst(8), as: UTF8.self)
        else {
            throw AttachmentError("\(process) sent a device without a name of 1 to \(Wire.maxNameBytes) bytes of UTF-8")
        }
        guard !devices.contains(where: { $0.name == name }) else {
            throw AttachmentError("\(process) sent two states of the device '\(name)'")
        }
        guard devices.count < Wire.maxDevices else {
            throw AttachmentError("\(process) sent more than \(Wire.maxDevices) devices")
        }
        let size = content.withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)) }
        guard size <= room else {
            throw AttachmentError(
                "\(process) announced \(size) bytes of state of the device '\(name)'; all states together may have "
                    + "\(Wire.maxDeviceBytes) bytes"
            )
        }
        (self.name, missing, state) = (name, Int(size), [])
        room -= Int(size)
        if missing == 0 { end() }
    }

    private mutating func end() {
        devices.append(DeviceSet.Saved(name: name, state: state))
        state = []
    }

    /// Checks that no state is incomplete.
    func finish() throws(AttachmentError) {
        guard missing == 0 else {
            throw AttachmentError("\(process) sent \(missing) bytes less of the device '\(name)' than it announced")
        }
    }
}

/// The error for a process that has closed its end of the connection.
struct HangUp: Error, CustomStringConvertible {
    let description: String
}

/// The error for a request that the process provably did not receive.
struct NotSent: Error, CustomStringConvertible {
    let description: String
}

/// The error for a process that answered FAILED, with its reason.
struct ProcessFailure: Error, CustomStringConvertible {
    let description: String
}

/// The error for a process that did not answer in time; it may still do what it was asked.
struct NoAnswer: Error, CustomStringConvertible {
    /// How long the process had, in seconds.
    let seconds: UInt64
    let description: String
}
