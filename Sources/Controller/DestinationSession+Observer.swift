import Connections

/// How one session follows another at the same port.
extension DestinationSession {
    /// Gives the port where sources come, which tells of each arrival from then on.
    typealias MakeAcceptor =
        @Sendable (_ onArrival: @escaping @Sendable (LaneAcceptor.Arrival) -> Void) throws -> LaneAcceptor

    /// Who is told of what becomes of a migration.
    struct Observer: Sendable {
        /// A source was taken: from now on the session has something to tell.
        var onAccept: @Sendable () -> Void
        /// The migration has failed, and another session is to take sources in at the same port, from this call on.
        var onWaitOn: @Sendable (DestinationSession, LaneAcceptor) -> Void
        /// The migration has ended, with the reason if it failed and nobody waits on.
        var onEnd: @Sendable (_ failure: String?) -> Void
    }

    /// A source was taken.
    func tellAccepted() {
        observer.onAccept()
    }

    /// Whether a source was taken.
    var hasAccepted: Bool { acceptedControl != nil }
}
