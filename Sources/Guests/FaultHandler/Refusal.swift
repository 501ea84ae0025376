import Attachments
import LinuxSystem
import Logging

/// What happens to a process whose hand-off is refused.
package enum RefusedPolicy: String, CaseIterable, Sendable {
    /// The process is killed.
    case kill
    /// The process waits for its memory for ever.
    case leave
}

/// A guest that was taken, and its number on the roster.
struct TakenGuest: ~Copyable {
    let guest: FirecrackerGuest
    let number: Int

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
    let logger: Logger

    /// Makes a guest of a connection and the first part of the hand-off that came over it.
    ///
    /// - Returns: nil if the hand-off was refused, and the policy was applied.
    func guest(
        from socket: consuming StreamSocket,
        _ first: consuming StreamSocket.DescriptorMessage
    ) -> TakenGuest? {
        // Kept open until the policy was applied: a process that sees its end may go on as if it had been served.
        let socket = SharedSocket(socket)
        defer { withExtendedLifetime(socket) {} }
        let name = socket.stream.peer
        var isGuest = first.descriptorCount > 0 || first.hasLostDescriptors
        var process: PeerProcess?
        do {
            if first.hasLostDescriptors {
                // Closed first, since the policy needs a descriptor.
                close(first)
                process = try PeerProcess(peerOf: socket.stream, orOutside: true)
                throw FirecrackerHandOff.lostDescriptors
            }
            process = try PeerProcess(peerOf: socket.stream, orOutside: true)
            let message = try FirecrackerHandOff.gather(first, from: socket.stream)
            isGuest = message.descriptorCount > 0 || message.hasLostDescriptors
            let guest = try FirecrackerGuest(from: socket, message)
            let number = try roster.add(guest.process, guest.userfaultfd, at: address)
            return TakenGuest(guest: guest, number: number)
        } catch {
            // A process that sent no descriptor keeps its memory for itself.
            guard isGuest else {
                drop(name, error)
                return nil
            }
            guard (error as? AdmissionRefusal)?.isServed != true else {
                logger.error("refused \(name) at \(address): \(error)")
                return nil
            }
            logger.error("refused \(name) at \(address): \(error); \(end(process))")
            return nil
        }
    }

    private func close(_ message: consuming StreamSocket.DescriptorMessage) {}

    /// Refuses a connection on which no memory was handed over.
    func drop(_ name: String, _ error: any Error) {
        logger.warning("refused \(name) at \(address): \(error)")
    }

    /// Applies the policy to a process, and says what became of it.
    private func end(_ process: borrowing PeerProcess?) -> String {
        switch policy {
        case .leave: return "it waits for its memory for ever, as --on-refused says; end it"
        case .kill:
            switch process {
            // The hand-off was refused for the reason why the process is not known.
            case .none: return "it waits for its memory for ever and cannot be killed from here; end it"
            case .some(let process):
                do throws(SystemError) {
                    try process.send(.kill)
                    return "it was killed, since it would have waited for its memory for ever"
                } catch {
                    return "it waits for its memory for ever and cannot be killed from here: \(error); end it"
                }
            }
        }
    }
}
