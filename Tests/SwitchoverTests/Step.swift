import Identity
import Switchover

/// One step of the world.
enum Step: Hashable, CustomStringConvertible {
    case source(SourceEvent)
    case destination(DestinationEvent)
    case sourceDies
    case destinationDies
    /// The source's process closes its connection to the agent.
    case processHangsUp
    case third(ThirdEvent)
    /// A record whose writer no longer waits reaches the store.
    case strayLands(Store.Proposal)

    var description: String {
        switch self {
        case .source(.migrate): "source: migrate"
        case .source(.startPostcopy): "source: migrate-start-postcopy"
        case .source(.migrateContinue): "source: migrate-continue"
        case .source(.leaseDue): "source: the lease must be asked again"
        case .source(.cancel): "source: migrate_cancel"
        case .source(.cancelOverdue): "source: migrate_cancel has waited too long"
        case .source(.ends): "source exits, as it was told to"
        case .source(.recover): "source: migrate, resume"
        case .source(.destinationIsGone(let hasRun)):
            "source: the operator says that the destination is gone and has \(hasRun ? "" : "not ")run"
        case .source(.retryResume): "source: resume is retried"
        case .source(.linkLost): "source notices that the link is lost"
        case .source(.allPagesSent): "source has sent all pages"
        case .source(.storeDecides(let operation)): "the store answers the source: \(words(operation))"
        case .source(.ended(let operation, let outcome)): "source: \(operation), \(outcome)"
        case .source(.received(let message)): "source receives \(words(message))"
        case .destination(.cont): "destination: cont"
        case .destination(.linkLost): "destination notices that the link is lost"
        case .destination(.allPagesResident): "destination has all pages"
        case .destination(.sourceGivenUp): "destination stops waiting for the source"
        case .destination(.accepted): "destination accepts a new link"
        case .destination(.storeDecides(let operation)): "the store answers the destination: \(words(operation))"
        case .destination(.leaves): "destination is told to exit"
        case .destination(.exitOverdue(let wait)): "destination's exit no longer waits for \(wait)"
        case .destination(.ends): "destination exits, as it was told to"
        case .destination(.migrateCancel): "destination: migrate_cancel"
        case .destination(.sourceIsGone): "destination: the operator says that the source is gone"
        case .destination(.makesWay): "destination accepts another migration"
        case .destination(.ended(let operation, let outcome)): "destination: \(words(operation)), \(outcome)"
        case .destination(.received(let message)): "destination receives \(words(message))"
        case .third(.moves(let side)): "the workload moves on from the \(side) to a third host"
        case .third(.commits): "the third host starts the workload"
        case .third(.refuses): "the third host does not start the workload"
        case .third(.takesOver): "the operator takes the lease over, as its owner is gone"
        case .third(.begins): "a workload of the same name begins on the third host"
        case .strayLands(let proposal): "a late record reaches the store: \(proposal)"
        case .sourceDies: "source dies"
        case .processHangsUp: "the source's process hangs up"
        case .destinationDies: "destination dies"
        }
    }
}

/// The text of an action or message without the names of inner types.
func words(_ value: Any) -> String {
    "\(value)"
        .replacing(/\w+\.(Source|Destination)Message\./, with: "")
        .replacing(/\w+\.Run(Grant|Token)/, with: "RunToken")
        .replacing(/RunToken\(token: (.*), epoch: \d+\)/) { $0.output.1 }
        .replacing(/RunToken\(value: (\d+)\)/) { "token \($0.output.1)" }
}
