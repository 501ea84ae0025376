package import Identity

/// The states of one side as clients see them, and which of them can follow each other.
///
/// A machine has more states than that: the article on the switchover lists them.
package enum VisibleStates {
    /// The states of a source that can follow each other.
    package static let sourceEdges: [[MigrationState]] = [
        [.none, .setup], [.setup, .active], [.active, .preSwitchover], [.active, .device], [.preSwitchover, .device],
        [.device, .postcopyDevice], [.postcopyDevice, .postcopyActive], [.postcopyActive, .postcopyPaused],
        [.postcopyPaused, .postcopyRecoverSetup], [.postcopyRecoverSetup, .postcopyRecover],
        [.postcopyRecoverSetup, .postcopyPaused], [.postcopyRecover, .postcopyActive],
        [.postcopyRecover, .postcopyPaused], [.postcopyRecover, .cancelling], [.postcopyActive, .completed],
        [.postcopyActive, .cancelling], [.cancelling, .postcopyActive], [.cancelling, .postcopyPaused],
        [.cancelling, .cancelled], [.setup, .cancelled], [.setup, .failed],
        [.active, .cancelled], [.active, .failed], [.preSwitchover, .cancelled], [.preSwitchover, .failed],
        [.device, .cancelled], [.device, .failed], [.postcopyDevice, .cancelled], [.postcopyDevice, .failed],
        [.postcopyActive, .failed], [.postcopyPaused, .cancelled],
        [.postcopyPaused, .failed], [.postcopyRecover, .cancelled], [.postcopyRecover, .failed],
    ]

    /// The states of a destination that can follow each other.
    package static let destinationEdges: [[MigrationState]] = [
        [.none, .setup], [.setup, .active], [.active, .postcopyDevice], [.postcopyDevice, .postcopyActive],
        [.postcopyActive, .postcopyPaused], [.postcopyPaused, .postcopyRecover], [.postcopyRecover, .postcopyActive],
        [.postcopyRecover, .postcopyPaused], [.postcopyActive, .completed], [.active, .cancelled], [.active, .failed],
        [.postcopyDevice, .cancelled], [.postcopyDevice, .failed], [.postcopyPaused, .completed],
        [.postcopyRecover, .completed], [.postcopyPaused, .failed], [.postcopyActive, .postcopyRecover],
        // A start that is under way ends without the link.
        [.postcopyDevice, .postcopyPaused], [.postcopyDevice, .postcopyRecover],
    ]

    /// The states that occur in edges, in their usual order.
    package static func states(of edges: [[MigrationState]]) -> [MigrationState] {
        let all = Set(edges.joined())
        return MigrationState.allCases.filter { all.contains($0) }
    }
}
