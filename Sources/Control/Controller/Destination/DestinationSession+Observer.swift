import Connections

/// Passing the listener from one session to the next.
extension DestinationSession {
    /// Makes or passes on the listener, which from then on calls `onArrival` for each connection.
    typealias MakeAcceptor =
        @Sendable (_ onArrival: @escaping @Sendable (LaneAcceptor.Arrival) -> Void) throws -> LaneAcceptor

    /// The receiver of a migration's progress.
    struct Observer: Sendable {
        /// Called when a source was accepted: from now on the session has a migration to report.
        var onAccept: @Sendable () -> Void
        /// Called when the migration has failed.
        ///
        /// The call makes another session accept sources from the listener before it returns, and returns whether that
        /// worked.
        var onWaitOn: @Sendable (DestinationSession, LaneAcceptor) -> Bool
        /// Called when the migration has ended here.
        ///
        /// - `failure`: the reason; nil if the migration completed, if another session waits for a source, or if the
        ///   agent is exiting.
        /// - `hasStarted`: whether the workload was started here; if so, only the exit of this process ends the
        ///   workload.
        var onEnd: @Sendable (_ failure: String?, _ hasStarted: Bool) -> Void
    }

    /// Reports to the observer that a source was accepted.
    func tellAccepted() {
        observer.onAccept()
    }

    /// Whether a source was accepted.
    var hasAccepted: Bool { arrival != nil }
}
