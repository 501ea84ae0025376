import Foundation
package import Testing

/// The Firecracker program that tests run, or the reason why they cannot.
package enum FirecrackerProgram {
    /// The program, or one line that says why it cannot be run here.
    package static let found: Result<String, RigFailure> = {
        guard access("/dev/kvm", R_OK | W_OK) == 0 else {
            return .failure(RigFailure("/dev/kvm cannot be used; load the kvm module or join the group kvm"))
        }
        do throws(RigFailure) {
            return .success(try Tool.run(RigFiles.script("firecracker"), []))
        } catch {
            return .failure(error)
        }
    }()

    /// Whether tests can run Firecracker.
    package static var isHere: Bool { (try? found.get()) != nil }

    static var reason: String {
        switch found {
        case .success: ""
        case .failure(let failure): failure.description
        }
    }
}

extension Trait where Self == ConditionTrait {
    /// Skips a test, with the reason, if Firecracker cannot be run.
    package static var needsFirecracker: ConditionTrait {
        .enabled(if: FirecrackerProgram.isHere, Comment(rawValue: FirecrackerProgram.reason))
    }
}
