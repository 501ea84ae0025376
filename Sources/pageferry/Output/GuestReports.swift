import FaultHandler
import Foundation
import Logging
import Telemetry

/// Writes the report of each restored guest into a folder of its own.
struct GuestReports: Sendable {
    private let folder: String
    private let logger: Logger

    /// Names the folder of the guests' folders.
    init(in folder: String, _ logger: Logger) { (self.folder, self.logger) = (folder, logger) }

    /// Makes the folder, so that a folder that cannot be written is reported before a guest attaches.
    func prepare() throws { try ReportFiles(in: folder).prepare() }

    /// Writes the report of a guest.
    ///
    /// The name of the guest's folder is the time at which the guest attached, and its process id: an earlier guest
    /// with the same process id keeps its report.
    func write(_ guest: EndedGuest) {
        let time = Date(timeIntervalSince1970: Double(guest.attached) / 1000)
        let style = Date.ISO8601FormatStyle(dateTimeSeparator: .standard, includingFractionalSeconds: true)
        let name = "\(time.formatted(style.dateSeparator(.dash).timeSeparator(.omitted)))-\(guest.process)"
        let files = ReportFiles(in: URL(filePath: folder).appending(path: name).path)
        do {
            try files.prepare()
            try files.write(guest.report)
        } catch {
            logger.error("the report of \(guest.report.workload.name) is not written: \(error)")
        }
    }
}
