import CShims
import Glibc
import Synchronization
import SystemPackage

/// Starts workers as copies of one process of this program, which has prepared itself once (a fork server).
///
/// A copy starts sooner than a program, and takes memory only for what it changes. The copies are children of this
/// process, which adopts orphans for that purpose (PR_SET_CHILD_SUBREAPER). They have their own process group, and share
/// standard output and standard error with this process.
///
/// If the fork server dies or hangs, the next worker has another one start.
package final class ForkServer: Sendable {
    /// Nanoseconds in which the fork server must have made a worker.
    private static let patience: UInt64 = 5_000_000_000

    private struct Running: ~Copyable {
        let process: WorkerProcess
        let socket: SharedSocket
    }

    private let arguments: [String]
    private let file: MemoryFile
    private let running = Mutex<Running?>(nil)

    /// Makes this process ready; the fork server starts with the first worker.
    ///
    /// - Parameters:
    ///   - arguments: the arguments, without the program's name, with which this program calls
    ///     ``TemplateProcess/serve()``.
    ///   - file: memory that this process and all workers share; the fork server inherits it after its own descriptor.
    package init(_ arguments: [String], sharing file: consuming MemoryFile) throws(SystemError) {
        self.arguments = arguments
        self.file = file
        _ = try attempt("adopt the workers of the fork server") { () throws(Errno) in
            try kernel(.prctl) { shim_adopt_orphans() }
        }
    }

    /// Returns once no thread waits for the fork server.
    package func check() { running.withLock { _ in } }

    /// Starts a worker.
    ///
    /// - Parameters:
    ///   - words: the words that `ps` shows as the worker's command; longer ones are cut.
    ///   - gifts: the descriptors that the worker finds in ``Inherited``; at most 15.
    package func start(
        as words: [String],
        giving gifts: borrowing WorkerProcess.Gifts
    ) throws(SystemError) -> WorkerProcess {
        let descriptors = gifts.descriptors
        let (number, own) = try running.withLock { (running: inout sending Running?) throws(SystemError) in
            let isNew = running == nil
            let (own, other) = try StreamSocket.pair()
            do throws(SystemError) {
                return (try ask(for: words, descriptors, other, &running), own)
            } catch {
                ForkServer.end(&running)
                if isNew { throw error }
            }
            // The process had died or hung since the worker before. What it may have made has the other pair, and ends.
            let (nextOwn, nextOther) = try StreamSocket.pair()
            return (try ask(for: words, descriptors, nextOther, &running), nextOwn)
        }
        guard number > 0 else { throw SystemError("start a worker", Errno(rawValue: -number)) }
        let worker = WorkerProcess(adopted: number)
        do throws(SystemError) {
            try own.stream.send([1])
        } catch {
            own.stream.shutdown()
            // A worker that was given up on ends; its status says nothing.
            _ = try? worker.waitForEnd()
            throw error
        }
        return worker
    }

    /// Has the fork server make a worker.
    ///
    /// - Parameter start: the worker's end of the connection on which the worker hears that it may begin. If this process
    ///   gives up on the worker, the worker ends.
    /// - Returns: the worker's process number, or an errno below zero.
    /// - Throws: if the fork server does not answer.
    private func ask(
        for words: [String],
        _ descriptors: [CInt],
        _ start: SharedSocket,
        _ running: inout Running?
    ) throws(SystemError) -> Int32 {
        if running == nil { running = try launch() }
        guard let socket = running?.socket else { preconditionFailure("the fork server was just started") }
        let order = descriptors + [start.stream.descriptor.raw]
        try socket.stream.send(Array(words.joined(separator: "\0").utf8), order)
        var number: Int32 = 0
        let deadline = MonotonicClock.now() + ForkServer.patience
        let count = try withUnsafeMutableBytes(of: &number) { (bytes) throws(SystemError) in
            try socket.stream.receive(exactly: bytes, before: deadline)
        }
        guard count == 4 else { throw SystemError("start a worker", .brokenPipe, reason: "the fork server has exited") }
        return number
    }

    private func launch() throws(SystemError) -> Running {
        let (own, other) = try StreamSocket.pair()
        var gifts = WorkerProcess.Gifts()
        try gifts.add(other.stream)
        try gifts.add(file)
        let process = try WorkerProcess(arguments, as: TemplateProcess.name, giving: gifts)
        return Running(process: process, socket: own)
    }

    /// Ends a fork server that does not answer as it should.
    private static func end(_ running: inout Running?) {
        guard let server = running.take() else { return }
        _ = kill(server.process.id, SIGKILL)
        // A child that was killed ends.
        _ = try? server.process.waitForEnd()
    }
}

/// The process that a ``ForkServer`` copies.
///
/// The process must have no second thread.
package struct TemplateProcess: ~Copyable {
    /// The name that `ps` shows for the template; its length leaves room for the words of a worker.
    static let name = "pageferry-worker-template"
    private static let longestName = 256
    private var orders: SharedSocket?

    /// Takes the connection to the process that wants workers.
    package init(_ inherited: inout Inherited) throws(HandedDescriptorError) {
        orders = SharedSocket(try inherited.socket(to: "the handler of the workers"))
    }

    /// Makes a worker for each order.
    ///
    /// - Returns: in each worker, the descriptors that were given to it; in this process nil, once nobody wants workers
    ///   any more.
    package mutating func serve() throws -> Inherited? {
        while true {
            guard let order = try receive(), !order.bytes.isEmpty else { return nil }
            let number: Int32
            do throws(Errno) {
                number = try kernel(.fork) { shim_fork_orphan() }
            } catch {
                number = -error.rawValue
            }
            if number == 0 {
                // Otherwise, the handler would not notice the template's death before this copy's.
                self.orders = nil
                return try TemplateProcess.begin(order)
            }
            try withUnsafeBytes(of: number) { (bytes) throws(SystemError) in try orders?.stream.send(bytes) }
        }
    }

    private func receive() throws(SystemError) -> StreamSocket.DescriptorMessage? {
        try orders?.stream.receiveDescriptors(maxBytes: TemplateProcess.longestName)
    }

    /// Makes a copy of the template a worker.
    private static func begin(_ order: consuming StreamSocket.DescriptorMessage) throws -> Inherited {
        _ = setpgid(0, 0)
        let words = order.bytes + [0]
        // The arguments lie one after the other, each with a zero at its end.
        let room = CommandLine.arguments.reduce(0) { $0 + $1.utf8.count + 1 }
        words.withUnsafeBytes { shim_set_arguments($0.baseAddress, min($0.count, room), room) }
        var sent = try order.copies()
        // The last descriptor is the connection on which the handler takes this worker for started.
        guard let last = sent.popLast() else { throw HandedDescriptorError(reason: "no descriptor was sent") }
        let start = StreamSocket(OwnedDescriptor(last), peer: "the handler")
        var byte: UInt8 = 0
        let count = try withUnsafeMutableBytes(of: &byte) { (bytes) throws(SystemError) in
            try start.receive(exactly: bytes)
        }
        guard count == 1 else { throw HandedDescriptorError(reason: "the handler has not waited for this worker") }
        return Inherited(sent: sent)
    }
}
