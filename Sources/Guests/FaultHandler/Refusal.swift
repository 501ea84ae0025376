import Attachments
import LinuxSystem
import Logging

/// What happens to a process whose hand-off is refused.
package enum RefusedPolicy: String, CaseIterable, Sendable {
    /// The process is killed.
    case kill
    /// The process waits for its memory for ever, and its missing pages never read as zeros.
    case leave
}

/// A guest that was taken, its number on the roster, and the huge pages that it may take.
struct TakenGuest: ~Copyable {
    let guest: FirecrackerGuest
    let number: Int
    let claim: PoolClaim?

    consuming func takeGuest() -> FirecrackerGuest { guest }
}

/// Takes hand-offs, and refuses those that cannot be served.
///
/// A guest whose hand-off is refused never gets a page, and the call by which it was restored never returns.
struct Refusal: Sendable {
    /// Where guests attach.
    let address: SocketAddress
    let policy: RefusedPolicy
    /// The guests that are served already.
    let roster: GuestRoster
    /// Keeps the memory of guests that are left as they are.
    let keeper: MemoryKeeper
    let logger: Logger

    /// Makes a guest of a connection and the first part of the hand-off that came over it.
    ///
    /// - Parameters:
    ///   - socket: the connection.
    ///   - first: the first part of the hand-off.
    ///   - reason: why the hand-off is refused in any case; nil if it may be served.
    /// - Returns: nil if the hand-off was refused, and the policy was applied.
    func guest(
        from socket: consuming StreamSocket,
        _ first: consuming StreamSocket.DescriptorMessage,
        refusedBecause reason: (any Error)? = nil
    ) -> TakenGuest? {
        // Kept open until the policy was applied: a process that sees its end may go on as if it had been served.
        let socket = SharedSocket(socket)
        defer { withExtendedLifetime(socket) {} }
        let name = socket.stream.peer
        var isGuest = first.descriptorCount > 0 || first.hasLostDescriptors
        var process: PeerProcess?
        // Kept until the policy was applied, which may need them.
        var copies: [SharedUserfaultfd]?
        do {
            if first.hasLostDescriptors {
                // Closed first, since the policy needs a descriptor.
                close(first)
                process = try PeerProcess(peerOf: socket.stream, orOutside: true)
                throw FirecrackerHandOff.lostDescriptors
            }
            copies = try first.copyUserfaultfds()
            process = try PeerProcess(peerOf: socket.stream, orOutside: true)
            if let reason { throw reason }
            let message = try FirecrackerHandOff.gather(first, from: socket.stream)
            isGuest = message.descriptorCount > 0 || message.hasLostDescriptors
            if message.descriptorCount > copies?.count ?? 0 { copies = try message.copyUserfaultfds() }
            let guest = try FirecrackerGuest(from: socket, message)
            let claim = PoolClaim(of: guest.process, guest.handOff.regions.map(\.range))
            let number = try roster.add(guest.process, guest.userfaultfd, at: address, claim)
            return TakenGuest(guest: guest, number: number, claim: claim)
        } catch {
            // A process that sent no descriptor keeps its memory for itself.
            guard isGuest else {
                drop(name, error)
                return nil
            }
            guard (error as? AdmissionRefusal)?.isServed != true else {
                logger.error("refused \(name) at \(address): \(error)", metadata: ["guest": "\(name)"])
                return nil
            }
            logger.error(
                "refused \(name) at \(address): \(error); \(end(process, copies))",
                metadata: ["guest": "\(name)"]
            )
            return nil
        }
    }

    private func close(_ message: consuming StreamSocket.DescriptorMessage) {}

    /// Refuses a connection on which no memory was handed over.
    func drop(_ name: String, _ error: any Error) {
        logger.warning("refused \(name) at \(address): \(error)", metadata: ["guest": "\(name)"])
    }

    /// Applies the policy to a process, and says what became of it.
    ///
    /// - Parameter copies: copies of the userfaultfds that came; nil if they could not be made.
    private func end(_ process: borrowing PeerProcess?, _ copies: [SharedUserfaultfd]?) -> String {
        switch policy {
        case .leave where copies == nil: return "it is left as it is, as --on-refused says\(Refusal.unkept); end it"
        case .leave:
            do {
                try keep(copies, of: process)
                return "it waits for its memory for ever, as --on-refused says; end it"
            } catch {
                return kill(process, copies, "its missing pages would read as zeros: \(error)")
            }
        case .kill: return kill(process, copies, "it would have waited for its memory for ever")
        }
    }

    private func kill(_ process: borrowing PeerProcess?, _ copies: [SharedUserfaultfd]?, _ reason: String) -> String {
        let obstacle: String
        switch process {
        // The hand-off was refused for the reason why the process is not known.
        case .none: obstacle = ""
        case .some(let process):
            do throws(SystemError) {
                try process.send(.kill)
                return "it was killed, since \(reason)"
            } catch {
                obstacle = ": \(error)"
            }
        }
        guard copies != nil else { return "it cannot be killed from here\(obstacle)\(Refusal.unkept); end it" }
        do {
            try keep(copies, of: process)
            return "it waits for its memory for ever and cannot be killed from here\(obstacle); end it"
        } catch {
            return "its missing pages read as zeros (\(error)), and it cannot be killed from here\(obstacle); end it"
        }
    }

    /// What is true of a process whose userfaultfd could not be copied.
    private static let unkept =
        ", and its userfaultfd could not be copied: if it has no copy itself, its missing pages read as zeros"

    private func keep(_ copies: [SharedUserfaultfd]?, of process: borrowing PeerProcess?) throws {
        let user: UInt32? =
            switch process {
            case .none: nil
            case .some(let process): process.user
            }
        try keeper.keep(Array((copies ?? []).prefix(StreamSocket.DescriptorMessage.maxDescriptors)), of: user)
    }
}
