import ArgumentParser
import Switchover

/// `--on-start-failure`: what a source does when the destination cannot start the workload.
enum StartFailureOption: String, ExpressibleByArgument, CaseIterable {
    case resume, wait

    var policy: StartRefusalPolicy {
        switch self {
        case .resume: .takeBack
        case .wait: .wait
        }
    }
}
