import LinuxSystem
import PageProtocol

/// Memory whose pages are sent on request.
///
/// ``RequestService`` is generic over this protocol and is specialized for each memory, so that no call per page is
/// dynamic.
protocol RequestedMemory: AnyObject, Sendable {
    /// Whether pages are copied before they are sent, because only a check after the copy, ``requireUnchanged()``, can
    /// tell whether the bytes were right.
    static var isCopied: Bool { get }

    /// The regions that requests refer to.
    var table: RegionTable { get }

    /// Runs `body`, which answers the requests of one round.
    func answering<Failure>(_ body: () throws(Failure) -> Void) throws(Failure)
    /// Prepares to answer a run, which lies in its region.
    func admit(_ run: PageRun) throws
    /// Whether a page was sent and arrives without a request.
    func isSent(_ page: Int, region: Int) -> Bool
    /// Whether a page must not be sent, because its memory was released.
    func isReleased(_ page: Int, region: Int) -> Bool
    /// Makes the window through which one thread sends pages.
    func makeWindow() -> PageWindow
    /// Shows the first of some pages, and as many of the others as can be shown with it.
    ///
    /// - Parameter window: the window of the thread, which is not full.
    /// - Returns: nil if the first page cannot be read and need not be, because it was sent before.
    func show(_ pages: Range<Int>, region: Int, in window: inout PageWindow) throws -> ShownPages?
    /// Whether a page that is shown contains only zeros.
    func isZero(_ page: Int, region: Int, in shown: ShownPages) -> Bool
    /// Notes that a run is being sent.
    func claim(_ pages: Range<Int>, region: Int, isZero: Bool)
    /// Throws if bytes that were read may be wrong; called before each send.
    func requireUnchanged() throws
    /// Notes that a request was answered.
    func noteAnswer()
    /// Whether pages are being pushed, so that no processor becomes idle and a thread gains nothing by polling.
    var isPushing: Bool { get }
    /// Notes that bytes of pages were sent on the urgent lane with this index.
    func noteSent(bytes: Int, lane: Int)
    /// Notes the newest request for a single page, after the answers of its round.
    func noteNewest(_ run: PageRun)
    /// Whether every page was sent; true for one caller only, the first that asks after the last page.
    func completesNow() -> Bool
}
