import Dispatch
import Foundation

/// Calls somebody when this process is told to end (SIGTERM, SIGINT), instead of ending it, as long as it is kept.
final class EndSignals {
    private var sources: [any DispatchSourceSignal] = []

    init(_ onSignal: @escaping @Sendable () -> Void) {
        for number in [SIGTERM, SIGINT] {
            // The source sees it all the same.
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler(handler: onSignal)
            source.resume()
            sources.append(source)
        }
    }
}
